//! A small forward proxy: HTTP with whole URLs, HTTP tunnels, SOCKS 4, 4a and 5, told apart by their first byte.
//!
//! Whatever name it is asked for, it connects to the one address that it was given: so names need not exist.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::raw::{Raw, patiently};

/// What somebody asked it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `absolute`, `CONNECT`, `socks4`, `socks4a`, `socks5` or, of a name, `socks5h`.
    pub how: &'static str,
    /// Name or address, and port.
    pub target: String,
    /// `user:password`, or what stands in `Proxy-Authorization`.
    pub credential: Option<String>,
    /// The head, where it is HTTP.
    pub head: String,
}

/// A running proxy. Stops when dropped.
pub struct ForwardProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    to: SocketAddr,
    /// What it wants to see; then it serves nobody else.
    wants: Option<(String, String)>,
    asked: Mutex<Vec<Asked>>,
    count: watch::Sender<usize>,
}

impl ForwardProxy {
    /// A proxy to `to` for everybody.
    pub async fn start(to: SocketAddr) -> Self {
        Self::listen(to, None).await
    }

    /// A proxy for this user alone.
    pub async fn guarded(to: SocketAddr, user: &str, password: &str) -> Self {
        Self::listen(to, Some((user.to_owned(), password.to_owned()))).await
    }

    async fn listen(to: SocketAddr, wants: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared { to, wants, asked: Mutex::default(), count: watch::Sender::new(0) });
        #[expect(clippy::disallowed_methods, reason = "aborted when the proxy is dropped")]
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    // Whoever breaks off has an upstream or a client that did.
                    connections.spawn(async move { drop(serve(socket, &shared).await) });
                }
            }
        });
        Self { address, shared, accepting }
    }

    /// Its URL with this scheme, and this userinfo if it is not empty.
    pub fn url(&self, scheme: &str, userinfo: &str) -> String {
        let at = if userinfo.is_empty() { "" } else { "@" };
        format!("{scheme}://{userinfo}{at}{}", self.address)
    }

    /// What it was asked for, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it was asked for last.
    pub fn last(&self) -> Asked {
        self.asked().pop().expect("it was asked for something")
    }

    /// Returns once it was asked for so many things.
    pub async fn until_asked(&self, count: usize) {
        let mut counted = self.shared.count.subscribe();
        patiently(counted.wait_for(|counted| *counted >= count)).await.expect("it runs");
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    /// Notes it; whether it may be had.
    fn note(&self, asked: Asked, credential: Option<&str>) -> bool {
        let admitted = match &self.wants {
            None => true,
            Some((user, password)) => credential == Some(&format!("{user}:{password}")),
        };
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(asked);
        self.count.send_replace(all.len());
        admitted
    }
}

async fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut first = [0];
    socket.peek(&mut first).await?;
    match first[0] {
        4 => socks4(socket, shared).await,
        5 => socks5(socket, shared).await,
        _ => http(socket, shared).await,
    }
}

async fn http(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut raw = Raw::over(socket);
    let head = raw.request().await;
    let header = |name: &str| {
        let is_it = |line: &&str| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name);
        head.lines().find(is_it).map(|line| line[name.len() + 1..].trim().to_owned())
    };
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let is_tunnel = method == "CONNECT";
    let url = target.strip_prefix("http://").unwrap_or(target);
    let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    let credential = header("proxy-authorization");
    let plain = credential.as_deref().and_then(|basic| basic.strip_prefix("Basic ")).map(base64_decoded);
    let asked = Asked {
        how: if is_tunnel { "CONNECT" } else { "absolute" },
        target: if is_tunnel { target.to_owned() } else { host.to_owned() },
        credential,
        head: head.clone(),
    };
    if !shared.note(asked, plain.as_deref()) {
        raw.send(
            "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"p\"\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n",
        )
        .await;
        return Ok(());
    }
    let mut upstream = TcpStream::connect(shared.to).await?;
    let (mut client, rest) = raw.into_parts();
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        // One request a connection, so that the next need not be found in the bytes.
        let mut forwarded = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        for line in head.lines().skip(1).filter(|line| !line.to_ascii_lowercase().starts_with("proxy-")) {
            forwarded.push_str(line);
            forwarded.push_str("\r\n");
        }
        upstream.write_all(forwarded.as_bytes()).await?;
    }
    upstream.write_all(&rest).await?;
    relay(client, upstream).await
}

async fn socks4(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let (_version, _command) = (socket.read_u8().await?, socket.read_u8().await?);
    let (port, address) = (socket.read_u16().await?, Ipv4Addr::from_bits(socket.read_u32().await?));
    let user = until_zero(&mut socket).await?;
    // An address that is none means that a name follows.
    let is_named = address.octets()[..3] == [0, 0, 0] && address.octets()[3] != 0;
    let host = if is_named { until_zero(&mut socket).await? } else { address.to_string() };
    let asked = Asked {
        how: if is_named { "socks4a" } else { "socks4" },
        target: format!("{host}:{port}"),
        credential: Some(user).filter(|user| !user.is_empty()),
        head: String::new(),
    };
    let admitted = shared.note(asked, None);
    socket.write_all(&[0, if admitted { 90 } else { 91 }, 0, 0, 0, 0, 0, 0]).await?;
    if !admitted {
        return Ok(());
    }
    relay(socket, TcpStream::connect(shared.to).await?).await
}

async fn socks5(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let _version = socket.read_u8().await?;
    let mut methods = vec![0; socket.read_u8().await?.into()];
    socket.read_exact(&mut methods).await?;
    let wanted = match (methods.contains(&2), &shared.wants) {
        (true, _) => 2,
        (false, None) => 0,
        (false, Some(_)) => 255,
    };
    socket.write_all(&[5, wanted]).await?;
    let mut credential = None;
    if wanted == 2 {
        let _version = socket.read_u8().await?;
        let (user, password) = (counted(&mut socket).await?, counted(&mut socket).await?);
        credential = Some(format!("{user}:{password}"));
        let known = shared.wants.as_ref().is_none_or(|(u, p)| *u == user && *p == password);
        socket.write_all(&[1, u8::from(!known)]).await?;
    }
    let mut head = [0; 4];
    socket.read_exact(&mut head).await?;
    let (how, host) = match head[3] {
        1 => ("socks5", Ipv4Addr::from_bits(socket.read_u32().await?).to_string()),
        3 => ("socks5h", counted(&mut socket).await?),
        _ => ("socks5", format!("[{}]", std::net::Ipv6Addr::from_bits(socket.read_u128().await?))),
    };
    let target = format!("{host}:{}", socket.read_u16().await?);
    let asked = Asked { how, target, credential: credential.clone(), head: String::new() };
    let admitted = shared.note(asked, credential.as_deref());
    socket.write_all(&[5, if admitted { 0 } else { 2 }, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if !admitted {
        return Ok(());
    }
    relay(socket, TcpStream::connect(shared.to).await?).await
}

async fn relay(mut client: TcpStream, mut upstream: TcpStream) -> io::Result<()> {
    io::copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}

/// A text with its length before it.
async fn counted(socket: &mut TcpStream) -> io::Result<String> {
    let mut text = vec![0; socket.read_u8().await?.into()];
    socket.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn until_zero(socket: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match socket.read_u8().await? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            byte => text.push(byte),
        }
    }
}

fn base64_decoded(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut left) = (Vec::new(), 0, 0);
    for digit in digits {
        bits = (bits << 6 | digit) & 0xffff;
        left += 6;
        if left >= 8 {
            left -= 8;
            bytes.push((bits >> left & 0xff) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
