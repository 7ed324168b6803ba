//! The shell: HTTP on a loopback port around [`Account::handle`](super::account::Account). It translates, waits and
//! breaks connections; it knows nothing of Emarsys.

use std::{future, net::Ipv4Addr, sync::Arc};

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    header::CONTENT_LENGTH,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::{AbortHandle, JoinSet, yield_now},
};

use super::{
    Shared,
    exchange::{Answer, Request, Response},
    limits::BYTES_MAX,
};
use crate::{Error, ErrorKind, Result};

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    /// `http://127.0.0.1:` and the port.
    pub(super) url: String,
    task: AbortHandle,
}

impl Server {
    /// Binds 127.0.0.1 and serves until dropped. Port 0 is any free one.
    pub(super) async fn start(port: u16, shared: Arc<Shared>) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::config("the sandbox needs a tokio runtime to run on").with_source(error)
        })?;
        let failed = |error| {
            Error::new(ErrorKind::Io, format!("cannot listen on 127.0.0.1:{port}")).with_source(error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = runtime.spawn(accept(listener, shared)).abort_handle();
        Ok(Self { url: format!("http://{address}"), task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The connections belong to the task, so they end with it.
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            // A connection that was gone before it was taken, or too many open files: both pass.
            Err(_) => yield_now().await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox was told to break this connection")]
struct Broken;

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Without it small replies may wait for an acknowledgement; if it fails they are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, &shared));
    // An error is a connection that the client or a fault broke.
    let _ =
        http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    shared: &Shared,
) -> std::result::Result<hyper::Response<BoxBody<Bytes, Broken>>, Broken> {
    let request = receive(request).await.map_err(|_| Broken)?;
    let reaction = shared.handle(&request);
    if !reaction.delay.is_zero() {
        shared.host.sleep(reaction.delay).await;
    }
    match reaction.answer {
        Answer::Whole(response) => print(&response, response.body.len()),
        Answer::Cut(response) => print(&response, response.body.len() / 2),
        Answer::Lost | Answer::Unreachable => Err(Broken),
    }
}

async fn receive(request: hyper::Request<Incoming>) -> hyper::Result<Request> {
    let (head, mut body) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
    let mut received = Request::new(head.method.as_str(), target);
    for (name, value) in &head.headers {
        received = received.header(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
    }
    while let Some(frame) = body.frame().await {
        // What is too much is read, so that the client gets to read the refusal, but not kept.
        if let Ok(data) = frame?.into_data()
            && received.body.len() <= BYTES_MAX
        {
            received.body.extend_from_slice(&data);
        }
    }
    Ok(received)
}

/// A reply of which only the first bytes of the body are sent before the connection breaks, if they are not all.
fn print(
    response: &Response,
    bytes: usize,
) -> std::result::Result<hyper::Response<BoxBody<Bytes, Broken>>, Broken> {
    let whole = Bytes::from(response.body.clone());
    let mut printed = hyper::Response::builder().status(response.status).header(CONTENT_LENGTH, whole.len());
    for (name, value) in &response.headers {
        printed = printed.header(*name, value);
    }
    let body = if bytes == whole.len() {
        BoxBody::new(Full::new(whole).map_err(|never| match never {}))
    } else {
        let begin = stream::once(future::ready(Ok(Frame::data(whole.slice(..bytes)))));
        let end = stream::once(async {
            // So that the beginning is on its way before the connection breaks.
            yield_now().await;
            Err(Broken)
        });
        BoxBody::new(StreamBody::new(begin.chain(end)))
    };
    printed.body(body).map_err(|_| Broken)
}
