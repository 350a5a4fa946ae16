//! The upstream that everything is measured against: on a thread of its own, with as little work per request as HTTP
//! allows, so that it is not what is measured.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
    task::LocalSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use crate::support::now;

/// What the keys of the pool begin with. Nothing else is served: a client's own key must not come through.
pub(crate) const KEY: &str = "sk-upstream-";
/// The header that says which answer is wanted: `events` or `silence`; otherwise a small JSON document.
pub(crate) const WANTED: HeaderName = HeaderName::from_static("x-bench-answer");

/// A chat completion of usual length.
pub(crate) const COMPLETION: &[u8] = br#"{"id":"chatcmpl-bench0000000000000000000000","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"A short answer, as most answers to a short question are.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":14,"completion_tokens":13,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_bench"}"#;

/// Connections that wait to be accepted: all streams may come at once.
const BACKLOG: u32 = 4096;

/// A stream as it is answered: so many events, so far apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) events: usize,
    pub(crate) every: Duration,
}

/// Starts the upstream. It serves until the process ends.
pub(crate) fn start(pace: Pace) -> io::Result<SocketAddr> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.listen(BACKLOG)?
    };
    let address = listener.local_addr()?;
    std::thread::Builder::new()
        .name("upstream".to_owned())
        .spawn(move || LocalSet::new().block_on(&runtime, serve(listener, pace)))?;
    Ok(address)
}

async fn serve(listener: TcpListener, pace: Pace) {
    let script: Rc<[Bytes]> = script(pace.events).into();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                eprintln!("the upstream accepts no connection: {error}");
                return;
            }
        };
        // An event must not wait for the acknowledgement of the one before.
        let _ = socket.set_nodelay(true);
        let script = Rc::clone(&script);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, Rc::clone(&script), pace.every));
            // It ends when the other side closes it, in the middle of a stream too.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(
    request: http::Request<Incoming>,
    script: Rc<[Bytes]>,
    every: Duration,
) -> Result<Response<Answer>, Infallible> {
    let headers = request.headers();
    let key = headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    let is_known = key.strip_prefix(b"Bearer ").is_some_and(|key| key.starts_with(KEY.as_bytes()));
    let wanted = headers.get(&WANTED).cloned();
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    if !is_known {
        let mut refusal = Response::new(Answer::Whole(Bytes::from_static(b"{}")));
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refusal);
    }
    let (media, body) = match wanted.as_ref().map(HeaderValue::as_bytes) {
        Some(b"events") => {
            let mut ticks = interval_at(Instant::from_std(now()) + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ("text/event-stream", Answer::Events { script, next: 0, ticks: Box::pin(ticks) })
        }
        Some(b"silence") => ("text/event-stream", Answer::Silence(script.first().cloned())),
        _ => ("application/json", Answer::Whole(Bytes::from_static(COMPLETION))),
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(answer)
}

/// Numbered events, and the mark of the end.
fn script(events: usize) -> Vec<Bytes> {
    let event = |number: usize| {
        format!(
            "data: {{\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion.chunk\",\
             \"created\":1700000000,\"model\":\"gpt-4o-mini\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{{\
             \"index\":0,\"delta\":{{\"content\":\"{number}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        )
    };
    let mut script: Vec<Bytes> = (0..events).map(|number| event(number).into()).collect();
    script.push(Bytes::from_static(b"data: [DONE]\n\n"));
    script
}

enum Answer {
    Whole(Bytes),
    /// One event at a time.
    Events {
        script: Rc<[Bytes]>,
        next: usize,
        ticks: Pin<Box<Interval>>,
    },
    /// One event and then nothing, until the other side leaves.
    Silence(Option<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Events { script, next, ticks } => {
                let event = script.get(*next).cloned();
                // The first comes with the head, the mark of the end with the last.
                if (1..script.len() - 1).contains(next) {
                    ready!(ticks.poll_tick(context));
                }
                *next += 1;
                event
            }
            Self::Silence(first) => match first.take() {
                Some(event) => Some(event),
                None => return Poll::Pending,
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events { .. } | Self::Silence(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }
}
