//! What is shared with `tests/it` and with the benchmark of peers, which need more of it.

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../../tests/it/fixture/caller.rs"]
pub(crate) mod caller;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../../tests/it/fixture/certs.rs"]
pub(crate) mod certs;

#[expect(dead_code, reason = "the benchmark needs the rest")]
#[path = "../peers/usage.rs"]
pub(crate) mod usage;
