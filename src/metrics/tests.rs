use super::*;

#[test]
fn methods_that_no_backend_has_are_other() {
    let metrics = Metrics::new();
    assert_eq!(metrics.method("a.B", "C", false).0, OTHER.into());
    assert_eq!(metrics.method("a.B", "C", true).0, "a.B".into());
    assert_eq!(metrics.method("a.B", "C", false).1, "C".into());
}

#[test]
fn methods_beyond_the_bound_are_other() {
    let metrics = Metrics::new();
    for number in 0..METHODS {
        metrics.method("a.B", &format!("M{number}"), true);
    }
    assert_eq!(metrics.method("a.B", "OneMore", true).1, OTHER.into());
    assert_eq!(metrics.method("a.B", "M7", false).1, "M7".into());
}

#[test]
fn what_no_configuration_names_is_forgotten() {
    let metrics = Metrics::new();
    for listener in ["kept", "gone"] {
        for upstream in ["", "kept", "gone"] {
            let labels = RouteLabels { listener: listener.into(), upstream: upstream.into() };
            metrics.streams.get_or_create(&labels).inc();
        }
    }
    let held = metrics.connections.get_or_create(&ListenerLabels { listener: "gone".into() });
    let name = || BTreeSet::from(["kept".to_owned()]);
    metrics.keep(&Named { listeners: name(), upstreams: name(), ..Named::default() });
    held.inc();
    let text = metrics.render();
    assert!(!text.contains("gone"), "{text}");
    assert_eq!(text.matches("upbeat_streams{").count(), 2, "{text}");
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new();
    metrics.service_serving.get_or_create(&ServiceLabels { service: "a\"\n\\".into() }).set(1);
    assert!(metrics.render().contains(r#"upbeat_service_serving{service="a\"\n\\"} 1"#));
}
