//! `process.roles`: what a node is in its cluster.

/// The roles of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    Broker,
    Controller,
    BrokerAndController,
}

impl Roles {
    /// What the names say. Without any name, a node has both roles.
    pub(crate) fn of(names: &[String]) -> Self {
        let has = |role: &str| names.iter().any(|name| name == role);
        match (has("broker"), has("controller")) {
            (true, false) => Self::Broker,
            (false, true) => Self::Controller,
            (true, true) | (false, false) => Self::BrokerAndController,
        }
    }

    pub fn has_broker(self) -> bool {
        self != Self::Controller
    }

    pub fn has_controller(self) -> bool {
        self != Self::Broker
    }
}
