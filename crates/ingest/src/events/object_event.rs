//! Events of Object Storage, each of which requests the import of its object. No I/O.

use std::borrow::Cow;

use serde::Deserialize;
use tollgate_types::Rejection;

use super::envelope::Event;
use crate::imports::Request;

/// The event types that report a new or changed object.
const OBJECT_TYPES: [&str; 2] = [
    "com.oraclecloud.objectstorage.createobject",
    "com.oraclecloud.objectstorage.updateobject",
];

/// The data of such an event, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectData<'a> {
    #[serde(borrow)]
    resource_name: Cow<'a, str>,
    #[serde(borrow)]
    additional_details: Details<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details<'a> {
    #[serde(borrow)]
    bucket_name: Cow<'a, str>,
    #[serde(borrow)]
    e_tag: Cow<'a, str>,
}

/// The import that an event requests; `None` for an event of any other type.
///
/// # Errors
/// The member at fault and the reason.
pub(super) fn import_request(event: &Event<'_>) -> Result<Option<Request>, Rejection> {
    if !OBJECT_TYPES.contains(&&*event.kind) {
        return Ok(None);
    }
    let data: ObjectData<'_> = serde_json::from_slice(&event.data).map_err(|_| {
        Rejection::new(
            "data",
            "must be the data of an Object Storage event, as a JSON object",
        )
    })?;
    for (field, value) in [
        ("data.resourceName", &data.resource_name),
        (
            "data.additionalDetails.bucketName",
            &data.additional_details.bucket_name,
        ),
    ] {
        if value.is_empty() {
            return Err(Rejection::new(field, "must be a non-empty string"));
        }
    }
    // Without a version of the object, only the id of the event distinguishes two versions.
    let version = match &*data.additional_details.e_tag {
        "" => &event.id,
        e_tag => e_tag,
    };
    let bucket = &data.additional_details.bucket_name;
    let mut request = Request::new(bucket, &data.resource_name, version, &event.id);
    request.traceparent = event.trace().map(|trace| trace.to_string());
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: &str) -> Event<'static> {
        Event {
            id: "e1".into(),
            kind: kind.to_owned().into(),
            source: "ObjectStorage".into(),
            data: data.as_bytes().to_vec().into(),
            traceparent: None,
        }
    }

    #[test]
    fn an_event_of_object_storage_requests_the_import_of_its_object() {
        let data = r#"{"resourceName":"in/a.csv","resourceId":"/n/x/b/y/o/z","additionalDetails":{"bucketName":"b","eTag":"v1","namespace":"n"}}"#;
        let request = import_request(&event(OBJECT_TYPES[0], data))
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*request.bucket, &*request.object, &*request.event_id),
            ("b", "in/a.csv", "e1")
        );
        assert_eq!(import_request(&event("com.example.paid", data)), Ok(None));
    }

    #[test]
    fn a_missing_member_of_an_object_event_is_named() {
        for (data, field) in [
            ("7", "data"),
            ("{}", "data.resourceName"),
            (
                r#"{"resourceName":"a"}"#,
                "data.additionalDetails.bucketName",
            ),
        ] {
            let rejection = import_request(&event(OBJECT_TYPES[0], data)).unwrap_err();
            assert_eq!(rejection.field, field);
        }
    }
}
