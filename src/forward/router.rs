//! From a request to the pools that may serve it, one after another.

use std::time::Instant;

use futures_util::future::{Either, ready};
use http::{HeaderMap, Response};

use super::{
    Alarm, ForwardError, Forwarder, Inbound, LeasedBody, Tunnel,
    catalog::Catalog,
    routes::{Alias, Choice, Choices, Misrouted, PoolIndex, Routes},
};
use crate::{clock::Clock, telemetry::access::Access};

/// All pools, and which requests go where.
#[derive(Debug)]
pub struct Router {
    pools: Vec<Forwarder>,
    routes: Routes,
    pub(super) catalog: Catalog,
    clock: Clock,
}

impl Router {
    /// A router over `pools`, of which there is at least one.
    #[must_use]
    pub fn new(pools: Vec<Forwarder>, aliases: &[Alias], clock: Clock) -> Self {
        let routes = Routes::new(&pools, aliases);
        Self { pools, routes, catalog: Catalog::default(), clock }
    }

    /// Whether requests may be made to ask for the usage of their streams.
    #[must_use]
    pub fn may_ask_for_usage(&self) -> bool {
        self.pools.iter().any(Forwarder::may_ask_for_usage)
    }

    /// One of the pools.
    pub(super) fn at(&self, pool: PoolIndex) -> &Forwarder {
        &self.pools[pool.get()]
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &[Forwarder] {
        &self.pools
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Which requests go where.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What goes on behind an answer that switches to another protocol.
    #[must_use]
    pub fn tunnel(&self, headers: &HeaderMap, body: LeasedBody) -> Option<Tunnel> {
        self.pools.first()?.tunnel(headers, body)
    }

    /// Serves a request from the pool that it asks for, or from whichever serves its model; where that can't serve it
    /// and the model has alternatives, from these.
    ///
    /// # Errors
    /// [`ForwardError`] when there is no answer to deliver; `access` comes back with it.
    pub fn run(
        &self,
        inbound: &mut Inbound,
        access: Access,
        alarm: Alarm,
    ) -> impl Future<Output = Result<Response<LeasedBody>, (ForwardError, Access)>> {
        let start = self.clock.mono();
        // No async function of its own: who waits for a key would hold everything twice.
        match self.aim(inbound) {
            Err(error) => Either::Left(ready(Err((error, access)))),
            Ok((pool, others)) if others.is_empty() => {
                Either::Right(Either::Left(self.at(pool).run(inbound, start, access, alarm)))
            }
            Ok((pool, others)) => {
                let chain = self.one_after_another(inbound, pool, others, start, access, alarm);
                Either::Right(Either::Right(Box::pin(chain)))
            }
        }
    }

    /// Points a request at the first of the pools that may serve it, and says which the others are.
    fn aim(&self, inbound: &mut Inbound) -> Result<(PoolIndex, Box<[Choice]>), ForwardError> {
        let Choices { first, others } = match inbound.to {
            Some(pool) => {
                let model = inbound.model().and_then(|model| self.routes.at(pool, model)).map(Box::from);
                Choices { first: Choice { pool, model }, others: Box::default() }
            }
            None => self.routes.choose(inbound.target.spoken(), inbound.model())?,
        };
        // What can be sent once only can't be sent to another.
        let others = if inbound.may_be_sent_again() { others } else { Box::default() };
        self.point(inbound, &first)?;
        Ok((first.pool, others))
    }

    fn point(&self, inbound: &mut Inbound, choice: &Choice) -> Result<(), ForwardError> {
        let pool = self.at(choice.pool);
        if !pool.api().allows(&inbound.method) {
            let (pool, allowed) = (pool.pool().name().clone(), pool.api().methods.clone());
            return Err(Misrouted::Method { pool, allowed }.into());
        }
        if let Some(model) = &choice.model {
            inbound.call_model(model)?;
            inbound.model = Some(model.clone());
        }
        let sent_as = inbound.model().and_then(|model| pool.api().name_of(model));
        if let Some(name) = sent_as.map(str::to_owned) {
            inbound.call_model(&name)?;
        }
        Ok(())
    }

    async fn one_after_another(
        &self,
        inbound: &mut Inbound,
        first: PoolIndex,
        others: Box<[Choice]>,
        start: Instant,
        mut access: Access,
        alarm: Alarm,
    ) -> Result<Response<LeasedBody>, (ForwardError, Access)> {
        let mut alarm = Some(alarm);
        let mut failed: Option<ForwardError> = None;
        let (mut at, mut others) = (first, others.iter());
        loop {
            inbound.falls_back = others.len() > 0;
            let alarm = alarm.take().unwrap_or_else(|| Alarm::new(self.clock));
            let pool = self.at(at);
            let (error, back) = match pool.run(inbound, start, access, alarm).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            access = back;
            let error = match failed.take() {
                Some(earlier) => earlier.or_sooner(error),
                None => error,
            };
            if !inbound.falls_back {
                return Err((error, access));
            }
            // Who can't be asked at all is passed over.
            let Some(next) = others.find(|choice| self.point(inbound, choice).is_ok()) else {
                return Err((error, access));
            };
            tracing::debug!(request.id = access.id(), from = %pool.pool().name(), to = %self.at(next.pool).pool().name(), cause = %error, "falls back");
            failed = Some(error);
            at = next.pool;
        }
    }
}

impl From<Misrouted> for ForwardError {
    fn from(misrouted: Misrouted) -> Self {
        Self::Misrouted(misrouted)
    }
}
