//! HTTP/2, by hyper. What breaks a connection on HTTP/1.1 resets the stream here.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;

use super::body::Step;
use super::dialect::key_of;
use super::listen::Socket;
use super::record::{Call, Link, Recorded};
use super::script::{Answer, Body, Start};
use super::{Hub, wire};

/// A reset throws away what is still queued, and nothing tells when the queue is empty.
const FLUSH: Duration = Duration::from_millis(10);

type Answered = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Serves streams until one side closes. `buffer` holds what was already read.
pub(super) async fn serve<S: Socket>(socket: S, buffer: BytesMut, hub: Arc<Hub>, link: Link) {
    let (reader, writer) = tokio::io::split(socket);
    let socket = tokio::io::join(io::Cursor::new(buffer.freeze()).chain(reader), writer);
    let link = Arc::new(link);
    let service = service_fn(|request| answer(request, Arc::clone(&hub), Arc::clone(&link)));
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = link.closing() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, hub: Arc<Hub>, link: Arc<Link>) -> io::Result<Answered> {
    let receiving = link.begin();
    let (mut head, incoming) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string);
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
        head.headers.entry(HOST).or_insert(host);
    }
    let key = key_of(&head.headers, &target);
    let chosen = hub.keys.choose(key.as_deref());
    let (body, body_len) = if chosen.early { (Bytes::new(), 0) } else { collect(incoming).await? };
    let request = Recorded {
        key,
        method: head.method,
        target,
        version: head.version,
        headers: head.headers,
        body,
        body_len,
        connection: link.id,
    };
    let call = receiving.record(&request);
    perform(hub.settle(chosen, &request), call).await
}

async fn collect(mut incoming: Incoming) -> io::Result<(Bytes, u64)> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        length += data.len() as u64;
        kept.extend_from_slice(&data[..data.len().min(wire::KEPT - kept.len())]);
    }
    Ok((kept.freeze(), length))
}

async fn perform(answer: Answer, call: Call) -> io::Result<Answered> {
    let start = answer.begin().await;
    if start == Start::Hang {
        std::future::pending::<()>().await;
    }
    if start != Start::Head || matches!(answer.body, Body::Raw(_)) {
        call.finish();
        return Err(broken());
    }
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    if let Some(length) = answer.length() {
        response.headers_mut().entry("content-length").or_insert(length.into());
    }
    if answer.length() == Some(0) {
        call.finish();
        return Ok(response.map(|()| Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()));
    }
    let body = stream::unfold(Some((answer.into_pieces(), call)), |state| async {
        let (mut pieces, call) = state?;
        match pieces.next().await {
            Step::Data(data) => Some((Ok(Frame::data(data)), Some((pieces, call)))),
            Step::End => {
                call.finish();
                None
            }
            Step::Cut | Step::BadChunk => {
                tokio::time::sleep(FLUSH).await;
                call.finish();
                Some((Err(broken()), None))
            }
        }
    });
    Ok(response.map(|()| StreamBody::new(body).boxed_unsync()))
}

fn broken() -> io::Error {
    io::Error::other("broken on purpose")
}
