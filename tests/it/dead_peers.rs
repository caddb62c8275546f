//! Endpoints that die without a word, and ones that close in the middle of what they say.

mod cut;
mod silent;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic_types::StatusExt;

use crate::fixture::caller::Reply;

/// Tells a status with RetryInfo, which bids its client to come back.
fn bids_come_back(reply: &Reply) -> bool {
    let mut fields = HeaderMap::new();
    for (name, value) in reply.head.headers().iter().chain(&reply.trailers) {
        fields.append(HeaderName::clone(name), HeaderValue::clone(value));
    }
    let status = tonic::Status::from_header_map(&fields);
    status.is_some_and(|status| status.get_details_retry_info().is_some())
}
