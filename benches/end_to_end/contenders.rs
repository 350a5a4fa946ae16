//! Who is measured: the upstream without a proxy, nginx, and ours.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    load::Target,
    nginx::{self, Nginx},
    support::{Result, daemon::Daemon},
    upstream,
};

/// How many keys ours rotates over.
const KEYS: usize = 10;

/// What is needed to start them.
pub(crate) struct Field {
    pub(crate) upstream: SocketAddr,
    pub(crate) nginx: Option<Nginx>,
    pub(crate) binary: PathBuf,
    /// Worker threads of ours; nginx has one.
    pub(crate) workers: usize,
}

/// One that is running.
pub(crate) enum Contender {
    Direct(SocketAddr),
    Nginx(Box<nginx::Running>),
    Ours(Box<Daemon>),
}

impl Field {
    /// Starts everyone anew, in the order of the table.
    pub(crate) async fn line_up(&self) -> Result<Vec<Contender>> {
        let mut all = vec![Contender::Direct(self.upstream)];
        if let Some(nginx) = &self.nginx {
            all.push(Contender::Nginx(Box::new(nginx.start(self.upstream).await?)));
        }
        let workers = self.workers.to_string();
        let variables = [("TOKIO_WORKER_THREADS", workers.as_str())];
        let ours = Daemon::start(&self.binary, &self.configuration(), &variables).await?;
        all.push(Contender::Ours(Box::new(ours)));
        Ok(all)
    }

    /// The defaults, but for what must not collide with a daemon that runs already.
    fn configuration(&self) -> String {
        let mut text = format!(
            "[upstream]\nbase_url = \"http://{}/v1\"\n[observability]\nmetrics_bind = \"127.0.0.1:0\"\n",
            self.upstream
        );
        for number in 0..KEYS {
            text += &format!("[[keys.pool]]\nkey = \"{}{number}\"\n", upstream::KEY);
        }
        text
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Nginx(_) => "nginx",
            Self::Ours(_) => "key-cycle-proxy",
        }
    }

    pub(crate) fn target(&self) -> Target {
        match self {
            Self::Direct(address) => Target { address: *address, pid: None },
            Self::Nginx(nginx) => Target { address: nginx.address, pid: Some(nginx.process.pid()) },
            Self::Ours(daemon) => Target { address: daemon.address, pid: Some(daemon.process.pid()) },
        }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Direct(_) => {}
            Self::Nginx(mut nginx) => nginx.process.stop().await?,
            Self::Ours(mut daemon) => daemon.process.stop().await?,
        }
        Ok(())
    }
}
