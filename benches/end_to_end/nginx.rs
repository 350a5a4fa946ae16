//! nginx as a reverse proxy for the same upstream: what a proxy costs that looks at nothing.

use std::{fs::File, io, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    load,
    support::{Result, process::Process},
    upstream,
};

/// Where it is installed, also for users whose `PATH` leaves out what is for administrators.
const PLACES: [&str; 4] = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx", "/opt/homebrew/bin/nginx"];
/// How many ports are tried before we give up: between choosing one and using it somebody else may take it.
const PORTS: usize = 5;
/// How long a start may take; nginx tries a busy port for 2.5 s itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nginx tells nobody that it listens.
const GLANCE: Duration = Duration::from_millis(10);

/// An installed nginx.
pub(crate) struct Nginx {
    program: &'static str,
    pub(crate) version: String,
}

/// A running one.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// The one that this machine has, if any.
    pub(crate) async fn find() -> Option<Self> {
        for program in PLACES {
            if let Ok(told) = Command::new(program).arg("-v").output().await {
                let told = String::from_utf8_lossy(&told.stderr).into_owned();
                let version = told.split_once("nginx/").map_or("", |(_, version)| version);
                let version = version.split_ascii_whitespace().next().unwrap_or_default().to_owned();
                return Some(Self { program, version });
            }
        }
        None
    }

    /// Starts it in front of `upstream` and waits until it serves.
    pub(crate) async fn start(&self, upstream: SocketAddr) -> Result<Running> {
        let mut words = String::new();
        for _ in 0..PORTS {
            let folder = tempfile::tempdir()?;
            let address = free_address()?;
            std::fs::write(
                folder.path().join("nginx.conf"),
                configuration(folder.path(), address, upstream),
            )?;
            let mut command = Command::new(self.program);
            command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(File::create(folder.path().join("stderr"))?);
            let mut process = Process::start(&mut command)?;
            let serves = async {
                while load::once(address).await.is_err() {
                    tokio::time::sleep(GLANCE).await;
                }
            };
            let serves = tokio::select! {
                serves = tokio::time::timeout(PATIENCE, serves) => serves.is_ok(),
                _ = process.ended() => false,
            };
            if serves {
                return Ok(Running { process, address, _folder: folder });
            }
            words = ["stderr", "error.log"]
                .map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default())
                .concat();
        }
        Err(format!("nginx did not start on any of {PORTS} ports; its last words:\n{words}").into())
    }
}

fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// One process that keeps connections, buffers nothing and logs nothing, and sets a key as ours does.
fn configuration(folder: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let (folder, key) = (folder.display(), upstream::KEY);
    // Without a master there is one process to count, and none that could outlive us.
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 8m;
    client_body_buffer_size 2m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream api {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Authorization \"Bearer {key}0\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
