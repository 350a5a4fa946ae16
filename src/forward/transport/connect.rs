//! New connections: directly or through a forward proxy, with TLS where the upstream speaks it.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection, HttpConnector,
            proxy::{SocksV4, SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::{ClientConfig, crypto::CryptoProvider};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tower::Service;

use super::Settings;

/// How often a silent connection is asked whether it lives, and how often in vain before it does not.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVES: u32 = 3;
/// How long what we wrote may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// TLS can't be set up: the system's certificates can't be read, or one that was added can't be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS can't be set up: {0}")]
pub struct TlsError(#[from] rustls::Error);

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes connections, each within the connect timeout.
#[derive(Clone)]
pub(super) struct Connector {
    tls: HttpsConnector<Way>,
    way: Way,
    config: Arc<ClientConfig>,
    patience: Duration,
}

/// The way to a host, without the TLS that is spoken with the host itself.
#[derive(Clone)]
struct Way {
    /// To the host, or to a SOCKS proxy.
    tcp: HttpConnector,
    /// To an HTTP proxy, which may speak TLS too.
    http_proxy: HttpsConnector<HttpConnector>,
    proxies: Option<Arc<Matcher>>,
    /// Whether an HTTP proxy is asked for a tunnel to whatever host.
    tunnels: bool,
}

impl Connector {
    /// With `http2`, that is offered.
    pub(super) fn new(settings: &Settings, http2: bool) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        // The scheme is the concern of what is around it.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(KEEP_ALIVES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let mut config = tls(settings)?;
        // A proxy is spoken to in HTTP/1.1.
        let http_proxy = (tcp.clone(), Arc::new(config.clone())).into();
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let way = Way { tcp, http_proxy, proxies: settings.proxies.clone(), tunnels: false };
        let (way, config, patience) = (way, Arc::new(config), settings.connect_timeout);
        Ok(Self { tls: (way.clone(), Arc::clone(&config)).into(), way, config, patience })
    }

    /// The same for what no proxy understands: it is asked for a tunnel.
    pub(super) fn tunneling(self) -> Self {
        let way = Way { tunnels: true, ..self.way };
        Self { tls: (way.clone(), Arc::clone(&self.config)).into(), way, ..self }
    }
}

/// TLS that trusts whom the system trusts, and the extra roots.
fn tls(settings: &Settings) -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let verifier = Verifier::new_with_extra_roots(settings.extra_roots.clone(), Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(context)
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        let connecting = self.tls.call(host);
        let patience = self.patience;
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the connect took too long");
            tokio::time::timeout(patience, connecting).await.map_err(late)?
        })
    }
}

impl Service<Uri> for Way {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, host: Uri) -> Self::Future {
        match self.proxies.as_ref().and_then(|proxies| proxies.intercept(&host)) {
            Some(proxy) => self.through(&proxy, host),
            None => plain(self.tcp.call(host)),
        }
    }
}

impl Way {
    fn through(&mut self, proxy: &Intercept, host: Uri) -> Connecting<Stream> {
        let at = proxy.uri().clone();
        let (user, password) = proxy.raw_auth().unwrap_or_default();
        match at.scheme_str() {
            Some(scheme @ ("socks4" | "socks4a" | "socks5" | "socks5h")) => {
                let tcp = self.tcp.clone();
                let (is_four, looks_up) =
                    (scheme.starts_with("socks4"), matches!(scheme, "socks4" | "socks5"));
                let credential = (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()));
                Box::pin(async move {
                    let host = if looks_up { looked_up(&host, is_four).await? } else { with_port(host) };
                    let proxy = socks(&at);
                    let io = if is_four {
                        SocksV4::new(proxy, tcp).call(host).await?
                    } else if let Some((user, password)) = credential {
                        SocksV5::new(proxy, tcp).with_auth(user, password).call(host).await?
                    } else {
                        SocksV5::new(proxy, tcp).call(host).await?
                    };
                    Ok(Stream::new(MaybeHttpsStream::Http(io), false))
                })
            }
            _ if self.tunnels || host.scheme() == Some(&Scheme::HTTPS) => {
                let host = if self.tunnels { with_port(host) } else { host };
                let mut tunnel = Tunnel::new(at, self.http_proxy.clone());
                if let Some(credential) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credential.clone());
                }
                let connecting = tunnel.call(host);
                Box::pin(async move { Ok(Stream::new(connecting.await?, false)) })
            }
            _ => {
                let connecting = self.http_proxy.call(at);
                Box::pin(async move { Ok(Stream::new(connecting.await?, true)) })
            }
        }
    }
}

/// What comes of a connect without TLS.
fn plain<E: Into<BoxError>>(
    connecting: impl Future<Output = Result<TokioIo<TcpStream>, E>> + Send + 'static,
) -> Connecting<Stream> {
    Box::pin(async move {
        let io = MaybeHttpsStream::Http(connecting.await.map_err(Into::into)?);
        Ok(Stream::new(io, false))
    })
}

/// The port of a host, where it names none that of its scheme: a SOCKS proxy is told a number.
fn port_of(host: &Uri) -> u16 {
    host.port_u16().unwrap_or(if host.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 })
}

fn with_port(host: Uri) -> Uri {
    let at = format!("{}:{}", host.host().unwrap_or_default(), port_of(&host));
    at_authority(&at).unwrap_or(host)
}

/// The address of a host. Looked up in the connector, the name would hold up a thread of the runtime.
async fn looked_up(host: &Uri, is_four: bool) -> Result<Uri, BoxError> {
    let name = host.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let mut found = tokio::net::lookup_host((name, port_of(host))).await?;
    // SOCKS 4 knows no other.
    let address = found.find(|address| !is_four || address.is_ipv4()).ok_or("the host has no address")?;
    Ok(at_authority(&address.to_string())?)
}

/// Where a SOCKS proxy is, with the port that IANA gave the protocol if no other is named.
fn socks(at: &Uri) -> Uri {
    const PORT: u16 = 1080;
    let authority = format!("{}:{}", at.host().unwrap_or_default(), at.port_u16().unwrap_or(PORT));
    at_authority(&authority).unwrap_or_else(|_| at.clone())
}

fn at_authority(authority: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query("/").build()
}

/// A connection on its way to a host.
pub(in crate::forward) struct Stream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether it ends at a proxy that must be told the whole URL of each request.
    proxied: bool,
    /// Whether the other side reads no more.
    deaf: bool,
}

impl Stream {
    fn new(io: MaybeHttpsStream<TokioIo<TcpStream>>, proxied: bool) -> Self {
        Self { io, proxied, deaf: false }
    }

    /// Who refuses early may close before it has read everything, and its answer is here all the same: what can't be
    /// written any more is lost, and reading tells how it ends.
    fn written(&mut self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.deaf = true;
                Poll::Ready(Ok(length))
            }
            written => written,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(written, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.written(written, length)
    }
}
