//! The content coding of a body: none, or gzip (RFC 9110, section 8.4).
//!
//! Invariant: what is decompressed counts like a body that came plain: against `max_body_bytes`, and against what may be
//! in flight, before its memory is used.

use std::io::{self, Read};

use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use flate2::read::MultiGzDecoder;
use tollgate_service::http::Problem;

/// How much is decompressed before other requests may run on the thread, in bytes.
const STEP: usize = 64 * 1024;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
}

impl Coding {
    /// The coding of a request by its header.
    ///
    /// # Errors
    /// 415 for any other coding, or for several.
    pub(crate) fn of(parts: &Parts) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(header::CONTENT_ENCODING).iter();
        let coding = match (given.next(), given.next()) {
            (None, _) => return Ok(Self::Plain),
            (Some(coding), None) => coding.as_bytes().trim_ascii().to_ascii_lowercase(),
            (Some(_), Some(_)) => Vec::new(),
        };
        match coding.as_slice() {
            b"identity" => Ok(Self::Plain),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            _ => {
                let detail = "the Content-Encoding must be gzip or identity";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
            }
        }
    }
}

/// Decompresses a body into at most `max_bytes`. `grow` is called with each piece.
///
/// # Errors
/// 400 if it is no gzip or is cut off, 413 if it is larger; the errors of `grow`.
pub(crate) async fn inflate(
    compressed: &[u8],
    max_bytes: usize,
    mut grow: impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut decoder = MultiGzDecoder::new(compressed);
    let mut piece = vec![0; STEP];
    let mut total = 0;
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                total += read;
                if total > max_bytes {
                    let detail = format!(
                        "the decompressed body is larger than {max_bytes} bytes; send fewer transactions in a request"
                    );
                    return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
                }
                grow(&piece[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let detail = "the body is not gzip, as its Content-Encoding says, or is damaged";
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
        tokio::task::yield_now().await;
    }
}
