//! Metrics in the text format that Prometheus reads.

use prometheus_client::registry::Registry;

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of `registry` as OpenMetrics text.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn renders_what_is_registered() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("ashlar_test", "A test", counter.clone());
        counter.inc_by(3);
        let text = render(&registry);
        assert!(text.contains("ashlar_test_total 3"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
