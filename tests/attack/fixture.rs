//! What is shared with `tests/it` and with the benchmark of peers, which need more of it.

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/caller.rs"]
pub(crate) mod caller;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/certs.rs"]
pub(crate) mod certs;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/echo.rs"]
pub(crate) mod echo;

#[expect(dead_code, reason = "the benchmark needs the rest")]
#[path = "../../benches/peers/frame.rs"]
pub(crate) mod frame;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/frames.rs"]
pub(crate) mod frames;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/issuer.rs"]
pub(crate) mod issuer;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/program.rs"]
pub(crate) mod program;

#[expect(dead_code, reason = "the benchmark needs the rest")]
#[path = "../../benches/peers/usage.rs"]
pub(crate) mod usage;

#[expect(dead_code, reason = "tests/it needs the rest")]
#[path = "../it/fixture/wire.rs"]
pub(crate) mod wire;
