//! What a file may be.

use crate::source::sources;

#[test]
fn files_are_short_enough_to_read() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", source.name());
        assert_ne!(source.path.file_name().unwrap(), "mod.rs", "{}", source.name());
    }
}

#[test]
fn only_these_read_the_wall_clock_which_may_jump() {
    // What is shown of a state, when it was fetched, and what tokens and certificates say themselves.
    // All that is waited for is counted by the monotonic clock.
    let known = [
        "src/app/certificates.rs",
        "src/app/keys.rs",
        "src/auth/jwt.rs",
        "src/demo/otlp.rs",
        "src/discovery.rs",
        "src/health/service.rs",
        "src/metrics.rs",
        "src/upstream/ejection.rs",
        "src/upstream/endpoint.rs",
        "src/upstream/history.rs",
        "src/watchdog/vitals.rs",
    ];
    let sources = sources();
    let reads = sources.iter().filter(|source| source.text.contains("SystemTime::now"));
    let mut found: Vec<_> = reads.map(|source| source.name()).collect();
    found.sort_unstable();
    assert_eq!(found, known);
}
