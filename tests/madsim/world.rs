//! One broker's machine and its clients' machines, and what a scenario can do to them.

use crate::asker::Asker;
use crate::client::Client;
use crate::network::{BROKER, Listener, Network};
use crate::runs::Log;
use crate::storage::{SharedDisk, SimulatedStorage};
use madsim::runtime::{Handle, NodeHandle};
use madsim::time::{Duration, sleep, timeout};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tidelog::admission::ResolvedLimits;
use tidelog::clock::wall_ms;
use tidelog::service::{Fatal, Service};
use tidelog_core::broker::Broker;
use tidelog_core::config::BrokerConfig;
use tidelog_sim::disk::{Disk, DiskOptions, Loss};
use tidelog_sim::random::{Ratio, Stream as Random, stream};

/// How long the runtime may take to drop the tasks of a killed process.
const KILL_WAIT: Duration = Duration::from_millis(10);

/// One run: the network, the disk and the broker's process, if it runs.
pub struct World {
    pub seed: u64,
    pub log: Log,
    pub network: Network,
    /// The scenario's own randomness.
    pub random: Random,
    disk: SharedDisk,
    starts: u64,
    process: Option<Process>,
}

struct Process {
    node: NodeHandle,
    service: Arc<Service>,
}

impl World {
    pub fn new(seed: u64, log: Log) -> Self {
        let mut random = stream(seed, "world", &[]);
        let options = DiskOptions {
            latency_ns_max: *random.pick(&[100_000, 5_000_000]),
            sync_ns_max: *random.pick(&[2_000_000, 30_000_000]),
            stall: if random.one_in(2) { Ratio::new(1, 50) } else { Ratio::NEVER },
            stall_ns_max: 300_000_000,
            ..DiskOptions::default()
        };
        Self {
            seed,
            network: Network::start(seed, log.clone()),
            log,
            random,
            disk: Arc::new(Mutex::new(Disk::new(seed, 0, options))),
            starts: 0,
            process: None,
        }
    }

    /// Starts the broker's process; returns when it accepts connections.
    pub async fn start(&mut self, properties: &[(&str, &str)]) {
        assert!(self.process.is_none(), "one process at a time");
        let mut all = vec![("node.id", "1"), ("log.dirs", "/disk0")];
        all.extend(properties);
        let (mut config, _) = BrokerConfig::from_properties(all).expect("a configuration that holds");
        config.set_addresses(&[9092], "broker");
        self.starts += 1;
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&stream(self.seed, "broker", &[self.starts]).bytes_16());

        let node = Handle::current().create_node().name(format!("broker-{}", self.starts)).build();
        let (disk, log, network) = (self.disk.clone(), self.log.clone(), self.network.clone());
        let started = node.spawn(async move {
            let storage = SimulatedStorage::start(disk, log);
            let broker = Broker::new(config.clone(), seed);
            let limits = ResolvedLimits::of(&config, |host| panic!("{host} has no name here")).expect("addresses");
            let (broker, storage) = (Box::new(broker), Box::new(storage));
            let service = Arc::new(Service::new(&config, limits, broker, storage, network.connector(BROKER)));
            service.boot(|_| Ok::<(), Fatal>(())).await.expect("a broker that comes up");
            let listener: Listener = network.listen().await.expect("the port is free");
            service.listen(0, listener);
            service
        });
        let service = started.await.expect("the broker's process is not killed while it starts");
        self.log.say(format_args!("the broker is up for the {}. time", self.starts));
        self.process = Some(Process { node, service });
    }

    /// The running broker.
    pub fn service(&self) -> &Arc<Service> {
        &self.process.as_ref().expect("it runs").service
    }

    /// Stops the broker cleanly, then ends its process.
    pub async fn stop(&mut self) {
        let service = self.service().clone();
        let process = self.process.as_ref().expect("it runs");
        let stopped = process.node.spawn(async move { service.stop().await });
        stopped.await.expect("the broker's process is not killed while it stops").expect("a clean stop");
        self.log.say(format_args!("the broker has stopped"));
        self.end(Loss::Process).await;
    }

    /// Kills the broker's process; with `Loss::Power` everything that was not synced is lost too.
    pub async fn crash(&mut self, loss: Loss) {
        self.log.say(format_args!("crash: {loss:?}"));
        self.end(loss).await;
    }

    async fn end(&mut self, loss: Loss) {
        let process = self.process.take().expect("it runs");
        Handle::current().kill(process.node.id());
        drop(process);
        self.disk.lock().expect("a run has one thread").crash(wall_ms(SystemTime::now()), loss);
        if loss == Loss::Power {
            self.network.power_off();
        }
        sleep(KILL_WAIT).await;
    }

    /// A node that asks the broker, on one of the other hosts.
    pub async fn asker(&self, host: usize) -> Asker {
        Asker::start(&self.network, host, self.seed, self.log.clone()).await
    }

    /// A client on one of the clients' hosts, 1 to 5.
    pub async fn client(&self, host: usize) -> Client {
        let connected = timeout(Duration::from_secs(30), self.network.connect(host)).await;
        let stream = connected.expect("in time").expect("a broker that accepts");
        Client::new(stream, format!("client on host {host}"), self.log.clone())
    }
}
