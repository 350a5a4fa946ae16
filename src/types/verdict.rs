//! What an answer means. Decided once, by `provider`; nobody else looks at a status code.

use std::time::Duration;

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// An answer the client asked for.
    Success,
    /// The request is at fault: any key would answer the same.
    ClientFault,
    /// A named code says that the credential is dead.
    KeyRejected,
    /// The credential lives but may not do this kind of thing.
    NotPermitted,
    /// A refusal that nothing names.
    UnknownRefusal,
    /// Our address or country is refused, whatever the key.
    EgressRefused,
    /// This key has no access to the model.
    ModelUnavailable,
    /// Money or a daily allowance has run out.
    QuotaExhausted,
    /// Too many requests or tokens for now.
    RateLimited,
    /// The provider is overloaded, whatever the key.
    Overloaded,
    /// The provider failed.
    ServerError,
    /// No connection: nothing of the request was sent.
    Unreachable,
    /// No response head in time.
    TimedOut,
    /// The connection broke after something was sent, or the answer broke off.
    Broken,
}

/// Whose matter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The client's: nothing of ours is touched.
    Client,
    /// The credential's, for every model and every entry it stands in.
    Key,
    /// The key's for one model.
    KeyModel,
    /// The account's.
    Account,
    /// The account's for one model.
    AccountModel,
    /// The host's.
    Host,
    /// Our own address's.
    Egress,
}

/// Class, scope, and until when, if the answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of answer it was.
    pub class: Class,
    /// Whose matter it is.
    pub scope: Scope,
    /// How long the answer asks us to stay away. `None`: it does not say.
    pub wait: Option<Duration>,
}

impl Verdict {
    /// A verdict without a wait.
    #[must_use]
    pub const fn new(class: Class, scope: Scope) -> Self {
        Self { class, scope, wait: None }
    }

    /// The same, until `wait` from now.
    #[must_use]
    pub const fn with_wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Whether it speaks against the host.
    #[must_use]
    pub const fn is_the_hosts(&self) -> bool {
        matches!(self.scope, Scope::Host | Scope::Egress)
    }

    /// An answer the client asked for.
    pub const SUCCESS: Self = Self::new(Class::Success, Scope::Client);
    /// The client's own fault.
    pub const CLIENT_FAULT: Self = Self::new(Class::ClientFault, Scope::Client);

    /// Whether upstream has certainly done nothing: it refused in so many words, or never saw the request.
    /// Then anything may be repeated on another key, also what creates objects.
    #[must_use]
    pub const fn nothing_done(&self) -> bool {
        match self.class {
            Class::KeyRejected
            | Class::NotPermitted
            | Class::UnknownRefusal
            | Class::EgressRefused
            | Class::ModelUnavailable
            | Class::QuotaExhausted
            | Class::RateLimited
            | Class::Unreachable => true,
            // An overloaded or failing server may have acted before it gave up.
            Class::Success
            | Class::ClientFault
            | Class::Overloaded
            | Class::ServerError
            | Class::TimedOut
            | Class::Broken => false,
        }
    }
}

impl Scope {
    /// The name in logs and metrics; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Key => "key",
            Self::KeyModel => "key_model",
            Self::Account => "account",
            Self::AccountModel => "account_model",
            Self::Host => "host",
            Self::Egress => "egress",
        }
    }
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 14] = [
        Self::Success,
        Self::ClientFault,
        Self::KeyRejected,
        Self::NotPermitted,
        Self::UnknownRefusal,
        Self::EgressRefused,
        Self::ModelUnavailable,
        Self::QuotaExhausted,
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::Unreachable,
        Self::TimedOut,
        Self::Broken,
    ];

    /// The name in logs and metrics; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientFault => "client_fault",
            Self::KeyRejected => "key_rejected",
            Self::NotPermitted => "not_permitted",
            Self::UnknownRefusal => "unknown_refusal",
            Self::EgressRefused => "egress_refused",
            Self::ModelUnavailable => "model_unavailable",
            Self::QuotaExhausted => "quota_exhausted",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
        }
    }
}
