//! A client's way to a sandbox without a server: each request is handed over as data.

use async_trait::async_trait;
use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{
    Sandbox,
    exchange::{Answer, Request, Response},
};
use crate::emarsys::transport::{HttpRequest, HttpResponse, Transport, TransportError};

#[async_trait]
impl Transport for Sandbox {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let path = request.url.path();
        let target = request.url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let mut handed = Request::new(request.method.as_str(), target);
        for (name, value) in &request.headers {
            handed = handed.header(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
        }
        let reaction = self.handle(&handed.body(request.body.unwrap_or_default()));
        if !reaction.delay.is_zero() {
            self.shared.host.sleep(reaction.delay.min(request.timeout)).await;
        }
        if reaction.delay >= request.timeout {
            return Err(TransportError::NoAnswer("the time for an answer is over".into()));
        }
        match reaction.answer {
            Answer::Whole(response) => Ok(translate(response)),
            Answer::Cut(_) | Answer::Lost => Err(TransportError::NoAnswer("the connection broke".into())),
        }
    }
}

fn translate(response: Response) -> HttpResponse {
    let headers = response.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    let headers: HeaderMap = headers.collect();
    // The sandbox makes valid statuses only; a fault may have been told any number.
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse { status, headers, body: response.body.into_bytes() }
}
