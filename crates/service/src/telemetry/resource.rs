//! The resource of the telemetry: <https://opentelemetry.io/docs/specs/semconv/resource/>.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

/// The process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence over the attributes set here.
pub(super) fn resource(service: &str) -> Resource {
    let instance = format!("{:032x}", rand::random::<u128>());
    let known = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.namespace", "tollgate"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build();
    // Its detectors read the two variables; the attributes set here fill the gaps.
    let found = Resource::builder().build();
    let named = |key: &opentelemetry::Key| {
        let unnamed = key.as_str() == "service.name"
            && found
                .get(key)
                .is_none_or(|name| name.as_str().starts_with("unknown_service"));
        !unnamed
    };
    let given = found
        .iter()
        .filter(|(key, _)| named(key))
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes(
            known
                .iter()
                .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
        )
        .with_attributes(given)
        .build()
}
