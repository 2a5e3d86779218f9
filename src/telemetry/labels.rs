//! The label sets of our metrics. Every label has few values, known from the configuration or from the code.

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            $(pub $field: String),+
        }

        impl $name {
            /// The label set with these values, in the order of the fields.
            pub fn new($($field: impl Into<String>),+) -> Self {
                Self { $($field: $field.into()),+ }
            }
        }
    };
}

labels! {
    /// A RADIUS client by its configured name.
    Nas { nas }
}
labels! {
    /// A RADIUS client and the kind of a packet: `start`, `stop`, `interim`, `on`, `off`, `status`, `other`.
    NasKind { nas, kind }
}
labels! {
    /// A RADIUS client (empty when none is known) and why a datagram was not answered: `unknown_nas`, `malformed`,
    /// `wrong_transport`, `wrong_code`, `bad_authenticator`, `bad_message_authenticator`, `queue_full`, `not_recorded`,
    /// `socket_buffer` (RFC 4671); or why a connection of its ended.
    NasReason { nas, reason }
}
labels! {
    /// A RADIUS client, what its NAS was asked (`coa`, `disconnect`), and how that ended: `ack`, `nak`, `unknown` (session),
    /// `silent`.
    NasResult { nas, kind, result }
}
labels! {
    /// Why something was refused.
    Reason { reason }
}
labels! {
    /// How something ended.
    Outcome { result }
}
labels! {
    /// An answered HTTP request: its route's pattern (never the path), method and status code.
    Request { method, route, status }
}
labels! {
    /// A tenant by its id; `-` is the installation.
    Tenant { tenant }
}
labels! {
    /// What is provisioned: `cm`, `mailbox`, `aaa`.
    Target { target }
}
labels! {
    /// What is provisioned, and the state or the end of a job.
    TargetState { target, state }
}
labels! {
    /// `up` is from the subscriber, `down` to the subscriber.
    Direction { direction }
}
labels! {
    /// A kind of outlet: `webhook`, `mail`, `sms`, `file`.
    Kind { kind }
}
labels! {
    /// A kind of outlet, and how an attempt to deliver an event ended: `delivered`, `failed` (it is tried again), `dead`, `gone`.
    KindResult { kind, result }
}
