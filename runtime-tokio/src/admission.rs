//! Counts the open connections and limits them, as Kafka's connection quotas do.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidelog_core::config::{BrokerConfig, ConnectionLimits};
use tidelog_core::ids::ConnId;
use tokio::sync::watch;

/// The limits on the number of connections, with host names resolved to addresses.
#[derive(Clone, Debug)]
pub struct ResolvedLimits {
    /// `max.connections`: while this many are open, a new connection waits until one closes.
    max: usize,
    /// `max.connections.per.ip`: while an address has this many open, a new connection from it is closed at once.
    max_per_ip: usize,
    /// `max.connections.per.ip.overrides`
    of_ip: HashMap<IpAddr, usize>,
    address_of: fn(&str) -> io::Result<IpAddr>,
}

impl ResolvedLimits {
    /// `address_of` resolves the host names of `max.connections.per.ip.overrides`.
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
#[error("max.connections.per.ip.overrides: cannot find the address of {host}: {error}")]
pub struct UnknownHost {
    host: String,
    error: io::Error,
}

/// The open connections of a broker, counted in all and by address, and the limits on them.
pub struct Connections {
    limits: Mutex<ResolvedLimits>,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    count: watch::Sender<usize>,
    next: AtomicU64,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `max.connections` is reached: wait for [`Connections::has_room`], then try again.
    Full,
    /// As many connections as this are open from the same address, which is its limit.
    TooManyFromAddress(usize),
}

impl Connections {
    pub fn new(limits: ResolvedLimits) -> Self {
        Self {
            limits: Mutex::new(limits),
            by_ip: Mutex::default(),
            count: watch::Sender::new(0),
            next: AtomicU64::new(1),
        }
    }

    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, Refusal> {
        // A socket that listens for IPv6 and IPv4 reports an IPv4 address as an IPv6 one.
        let ip = ip.to_canonical();
        let mut by_ip = self.by_ip.lock().expect("no thread panics while it holds this lock");
        let limits = self.limits();
        if *self.count.borrow() >= limits.max {
            return Err(Refusal::Full);
        }
        let of_ip = by_ip.get(&ip).copied().unwrap_or(0);
        let max_of_ip = limits.of_ip.get(&ip).copied().unwrap_or(limits.max_per_ip);
        if of_ip >= max_of_ip {
            return Err(Refusal::TooManyFromAddress(max_of_ip));
        }
        drop(limits);
        by_ip.insert(ip, of_ip + 1);
        self.count.send_modify(|count| *count += 1);
        let conn = ConnId(self.next.fetch_add(1, Ordering::Relaxed));
        Ok(Admitted { conn, connections: self.clone(), ip })
    }

    /// Completes when fewer connections are open than `max.connections`.
    pub async fn has_room(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count < self.limits().max).await;
    }

    /// Puts new limits in force. Connections that are open stay open; those that wait are checked again. On an error
    /// the old limits stay.
    pub fn set_limits(&self, limits: &ConnectionLimits) -> Result<(), UnknownHost> {
        let address_of = self.limits().address_of;
        let limits = ResolvedLimits::from_core(limits, address_of)?;
        *self.limits() = limits;
        self.count.send_modify(|_| {});
        Ok(())
    }

    fn limits(&self) -> MutexGuard<'_, ResolvedLimits> {
        self.limits.lock().expect("no thread panics while it holds this lock")
    }

    /// Completes when no connection is open.
    pub async fn all_closed(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// One open connection: its id, its client's address (one of IPv4 is not mapped to IPv6), and its share of the limits, which is given back when this is dropped.
pub struct Admitted {
    pub conn: ConnId,
    pub ip: IpAddr,
    connections: Arc<Connections>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut by_ip = self.connections.by_ip.lock().expect("no thread panics while it holds this lock");
        let of_ip = by_ip.get_mut(&self.ip).expect("`admit` counted this address");
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
        let limits = ResolvedLimits::of(&config, |host| match host {
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
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromAddress(2)));
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
            async move { connections.has_room().await }
        });
        tokio::task::yield_now().await;
        connections.set_limits(&limits(2, 2)).unwrap();
        waiting.await.unwrap();
        let _second = connections.admit(here).ok().unwrap();
        connections.set_limits(&limits(10, 1)).unwrap();
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromAddress(1)));
        assert_eq!(*connections.count.borrow(), 2);

        // A host name that cannot be resolved: the limits stay.
        let unknown = ConnectionLimits { per_ip_overrides: vec![("nowhere".into(), 1)], ..limits(99, 99) };
        assert!(connections.set_limits(&unknown).is_err());
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromAddress(1)));
    }

    #[test]
    fn an_address_may_have_a_limit_of_its_own_by_number_or_by_name_on_either_kind_of_socket() {
        let overrides = ("max.connections.per.ip.overrides", "127.0.0.1:2,neighbour:0");
        let connections = connections(&[("max.connections.per.ip", "1"), overrides]);
        let here = IpAddr::from([127, 0, 0, 1]);
        let _first = connections.admit(here).ok().unwrap();
        let _second = connections.admit("::ffff:127.0.0.1".parse().unwrap()).ok().unwrap();
        assert_eq!(connections.admit(here).err(), Some(Refusal::TooManyFromAddress(2)));
        assert_eq!(connections.admit([127, 0, 0, 2].into()).err(), Some(Refusal::TooManyFromAddress(0)));
        let _other = connections.admit([127, 0, 0, 3].into()).ok().unwrap();
        assert_eq!(connections.admit([127, 0, 0, 3].into()).err(), Some(Refusal::TooManyFromAddress(1)));
    }
}
