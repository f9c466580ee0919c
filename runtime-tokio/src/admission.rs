//! Who is connected, and who may be: Kafka's connection quotas.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidelog_core::config::{BrokerConfig, ConnectionLimits};
use tidelog_core::ids::ConnId;
use tokio::sync::watch;

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `max.connections`: who comes when there are so many waits until one goes.
    max: usize,
    /// `max.connections.per.ip`: who comes from an address with so many is closed at once.
    max_per_ip: usize,
    /// `max.connections.per.ip.overrides`
    of_ip: HashMap<IpAddr, usize>,
    address_of: fn(&str) -> io::Result<IpAddr>,
}

impl Limits {
    /// `address_of` finds a host's address by its name.
    pub fn of(config: &BrokerConfig, address_of: fn(&str) -> io::Result<IpAddr>) -> Result<Self, UnknownHost> {
        Self::from_core(&config.layers().connection_limits(), address_of)
    }

    fn from_core(limits: &ConnectionLimits, address_of: fn(&str) -> io::Result<IpAddr>) -> Result<Self, UnknownHost> {
        let count = |number: i32| usize::try_from(number).unwrap_or(0);
        let find = |(host, number): &(String, i32)| match host.parse().or_else(|_| address_of(host)) {
            Ok(ip) => Ok((ip.to_canonical(), count(*number))),
            Err(error) => Err(UnknownHost { host: host.clone(), error }),
        };
        Ok(Self {
            max: count(limits.max),
            max_per_ip: count(limits.max_per_ip),
            of_ip: limits.per_ip_overrides.iter().map(find).collect::<Result<_, _>>()?,
            address_of,
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("max.connections.per.ip.overrides: the address of {host} is not to be found: {error}")]
pub struct UnknownHost {
    host: String,
    error: io::Error,
}

pub struct Connections {
    limits: Mutex<Limits>,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
    open: watch::Sender<bool>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: [`Connections::slot`] tells when to try again.
    Full,
    /// There are as many from the same address as there may be.
    TooManyFromThere(usize),
}

impl Connections {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Mutex::new(limits),
            by_ip: Mutex::default(),
            count: watch::Sender::new(0),
            next: AtomicU64::new(1),
            open: watch::Sender::new(true),
        }
    }

    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, Refusal> {
        // On a socket for both, an IPv4 address comes as an IPv6 one.
        let ip = ip.to_canonical();
        let mut by_ip = self.by_ip.lock().expect("no panic holds this lock");
        let limits = self.limits();
        if *self.count.borrow() >= limits.max {
            return Err(Refusal::Full);
        }
        let of_ip = by_ip.get(&ip).copied().unwrap_or(0);
        let max_of_ip = limits.of_ip.get(&ip).copied().unwrap_or(limits.max_per_ip);
        if of_ip >= max_of_ip {
            return Err(Refusal::TooManyFromThere(max_of_ip));
        }
        drop(limits);
        by_ip.insert(ip, of_ip + 1);
        self.count.send_modify(|count| *count += 1);
        let conn = ConnId(self.next.fetch_add(1, Ordering::Relaxed));
        Ok(Admitted { conn, connections: self.clone(), ip })
    }

    /// Completes when there are fewer connections than there may be.
    pub async fn slot(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count < self.limits().max).await;
    }

    /// From now on these limits are in force. Who is in stays in; who waits is looked at again.
    pub fn change(&self, limits: &ConnectionLimits) -> Result<(), UnknownHost> {
        let address_of = self.limits().address_of;
        let limits = Limits::from_core(limits, address_of)?;
        *self.limits() = limits;
        self.count.send_modify(|_| {});
        Ok(())
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().expect("no panic holds this lock")
    }

    /// From now on nobody is let in.
    pub fn refuse(&self) {
        self.open.send_replace(false);
    }

    /// Completes once [`refuse`](Self::refuse) was called.
    pub async fn refused(&self) {
        let _ = self.open.subscribe().wait_for(|open| !open).await;
    }

    /// Completes when nobody is connected.
    pub async fn none(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// One connection's place among the limits, and its name.
pub struct Admitted {
    pub conn: ConnId,
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut by_ip = self.connections.by_ip.lock().expect("no panic holds this lock");
        let of_ip = by_ip.get_mut(&self.ip).expect("it was counted");
        *of_ip -= 1;
        if *of_ip == 0 {
            by_ip.remove(&self.ip);
        }
        self.connections.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(properties: &[(&str, &str)]) -> Arc<Connections> {
        let config = BrokerConfig::from_properties(properties.iter().copied()).unwrap().0;
        let limits = Limits::of(&config, |host| match host {
            "neighbour" => Ok(IpAddr::from([127, 0, 0, 2])),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        Arc::new(Connections::new(limits.unwrap()))
    }

    #[test]
    fn each_address_has_its_limit_and_all_have_one_together() {
        let connections = connections(&[("max.connections", "3"), ("max.connections.per.ip", "2")]);
        let [here, there] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
        let first = connections.admit(here).ok().unwrap();
        let second = connections.admit(here).ok().unwrap();
        assert_ne!(first.conn, second.conn);
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromThere(2)));
        let third = connections.admit(there).ok().unwrap();
        assert_eq!(connections.admit(there).err(), Some(Refusal::Full));
        drop(first);
        assert!(connections.admit(here).is_ok());
        drop((second, third));
        assert!(connections.by_ip.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_comes_in_when_the_limit_is_raised_and_nobody_goes_when_it_is_lowered() {
        let connections = connections(&[("max.connections", "1")]);
        let here = IpAddr::from([127, 0, 0, 1]);
        let limits = |max, max_per_ip| ConnectionLimits { max, max_per_ip, per_ip_overrides: Vec::new() };
        let _first = connections.admit(here).ok().unwrap();
        assert_eq!(connections.admit(here).err(), Some(Refusal::Full));
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.slot().await }
        });
        tokio::task::yield_now().await;
        connections.change(&limits(2, 2)).unwrap();
        waiting.await.unwrap();
        let _second = connections.admit(here).ok().unwrap();
        connections.change(&limits(10, 1)).unwrap();
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromThere(1)));
        assert_eq!(*connections.count.borrow(), 2);

        // A host that nobody knows: the limits stay.
        let unknown = ConnectionLimits { per_ip_overrides: vec![("nowhere".into(), 1)], ..limits(99, 99) };
        assert!(connections.change(&unknown).is_err());
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromThere(1)));
    }

    #[test]
    fn an_address_may_have_a_limit_of_its_own_by_number_or_by_name_on_either_kind_of_socket() {
        let overrides = ("max.connections.per.ip.overrides", "127.0.0.1:2,neighbour:0");
        let connections = connections(&[("max.connections.per.ip", "1"), overrides]);
        let here = IpAddr::from([127, 0, 0, 1]);
        let _first = connections.admit(here).ok().unwrap();
        let _second = connections.admit("::ffff:127.0.0.1".parse().unwrap()).ok().unwrap();
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromThere(2)));
        assert_eq!(connections.admit([127, 0, 0, 2].into()).err(), Some(Refusal::TooManyFromThere(0)));
        let _other = connections.admit([127, 0, 0, 3].into()).ok().unwrap();
        assert_eq!(connections.admit([127, 0, 0, 3].into()).err(), Some(Refusal::TooManyFromThere(1)));
    }
}
