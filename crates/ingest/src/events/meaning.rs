//! What an event asks for: transactions to be decided on, or an object to be imported. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use tollgate_types::Rejection;

use super::envelope::Event;
use crate::imports::Request;

/// Types that tell of an object that is there, or is another one.
const OBJECT_TYPES: [&str; 2] = [
    "com.oraclecloud.objectstorage.createobject",
    "com.oraclecloud.objectstorage.updateobject",
];

/// The data of such an event, as far as it matters.
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

/// The object that an event tells of; none, where it tells of none.
pub(super) fn object(event: &Event<'_>) -> Result<Option<Request>, Rejection> {
    if !OBJECT_TYPES.contains(&&*event.kind) {
        return Ok(None);
    }
    let data: ObjectData<'_> = serde_json::from_slice(&event.data).map_err(|_| {
        Rejection::new(
            "data",
            "must be that of an event of Object Storage, as a JSON object",
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
            return Err(Rejection::new(
                field,
                "must be there, as text that is not empty",
            ));
        }
    }
    // Without the object's own version, an event is the only thing that tells two of them apart.
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
    fn an_event_of_object_storage_asks_for_its_object() {
        let data = r#"{"resourceName":"in/a.csv","resourceId":"/n/x/b/y/o/z","additionalDetails":{"bucketName":"b","eTag":"v1","namespace":"n"}}"#;
        let asked = object(&event(OBJECT_TYPES[0], data)).unwrap().unwrap();
        assert_eq!(
            (&*asked.bucket, &*asked.object, &*asked.event_id),
            ("b", "in/a.csv", "e1")
        );
        assert_eq!(object(&event("com.example.paid", data)), Ok(None));
    }

    #[test]
    fn what_such_an_event_lacks_is_named() {
        for (data, field) in [
            ("7", "data"),
            ("{}", "data.resourceName"),
            (
                r#"{"resourceName":"a"}"#,
                "data.additionalDetails.bucketName",
            ),
        ] {
            let rejection = object(&event(OBJECT_TYPES[0], data)).unwrap_err();
            assert_eq!(rejection.field, field);
        }
    }
}
