//! A node that asks the broker: another shell, whose machine is the core's peers alone.

use crate::network::Network;
use crate::runs::Log;
use crate::storage::SimulatedStorage;
use madsim::runtime::{Handle, NodeHandle};
use madsim::time::{Duration, sleep};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidelog::admission::ResolvedLimits;
use tidelog::door;
use tidelog::inbox::Message;
use tidelog::service::{Fatal, Service};
use tidelog_core::config::BrokerConfig;
use tidelog_core::io::{Answered, Ask, AskError, Input, Outbox, Output, PeerId, PeerOwner};
use tidelog_core::peers::Peers;
use tidelog_core::time::{Mono, Now};
use tidelog_core::wire::{Address, RequestBody};
use tidelog_sim::disk::{Disk, DiskOptions};

/// How much later than its time-out a question may fail: the door's ticker wakes every millisecond.
const LATE_NS_MAX: u64 = 10_000_000;

/// The running process of a node that asks.
pub struct Asker {
    host: usize,
    node: NodeHandle,
    service: Arc<Service>,
    orders: Arc<Mutex<Vec<Ask>>>,
    answers: Answers,
    asked: u64,
    log: Log,
}

/// The answers that nobody has taken yet, and when each came.
type Answers = Arc<Mutex<BTreeMap<u64, (u64, Result<Answered, AskError>)>>>;

struct Machine {
    peers: Peers,
    orders: Arc<Mutex<Vec<Ask>>>,
    answers: Answers,
}

impl door::Machine for Machine {
    fn handle(&mut self, now: Now, input: Input, out: &mut Outbox) {
        match input {
            Input::Boot => out.outputs.push(Output::Ready),
            Input::Stop => out.outputs.push(Output::Stopped),
            Input::Tick => {}
            Input::Link(link, event) => self.peers.handle_link(now.mono, link, event, out),
            other => panic!("a node that only asks gets {other:?}"),
        }
        let asks = std::mem::take(&mut *self.orders.lock().expect("a run has one thread"));
        self.peers.ask(now.mono, asks, out);
        if self.peers.deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.peers.tick(now.mono, out);
        }
        for answer in self.peers.take_answers() {
            let came = (crate::now_ns(), answer.result);
            let before = self.answers.lock().expect("a run has one thread").insert(answer.id.seq, came);
            assert!(before.is_none(), "question {} is answered twice", answer.id.seq);
        }
        self.peers.verify();
    }

    fn deadline(&self) -> Option<Mono> {
        self.peers.deadline()
    }
}

impl Asker {
    /// Starts a process on one of the hosts beside the broker's.
    pub async fn start(network: &Network, host: usize, seed: u64, log: Log) -> Self {
        let id = (host + 1).to_string();
        let (config, _) = BrokerConfig::from_properties([("node.id", &*id), ("log.dirs", "/disk0")])
            .expect("a configuration that holds");
        let (orders, answers): (Arc<Mutex<Vec<Ask>>>, Answers) = Default::default();
        let peers = Peers::new(&config, [host as u8; 32]);
        let machine = Machine { peers, orders: orders.clone(), answers: answers.clone() };
        let node = Handle::current().create_node().name(format!("asker-{host}")).build();
        let (connector, storage_log) = (network.connector(host), log.clone());
        let started = node.spawn(async move {
            let disk = Arc::new(Mutex::new(Disk::new(seed, host as u64, DiskOptions::default())));
            let storage = Box::new(SimulatedStorage::start(disk, storage_log));
            let limits = ResolvedLimits::of(&config, |host| panic!("{host} has no name here")).expect("addresses");
            let service = Arc::new(Service::new(&config, limits, Box::new(machine), storage, connector));
            service.boot(|_| Ok::<(), Fatal>(())).await.expect("there is nothing to boot");
            service
        });
        let service = started.await.expect("the process is not killed while it starts");
        Self { host, node, service, orders, answers, asked: 0, log }
    }

    /// Asks, and waits for the answer, which comes within the time-out.
    pub async fn ask(
        &mut self,
        to: &Address,
        version: i16,
        body: impl Into<RequestBody>,
        timeout_ms: i64,
    ) -> Result<Answered, AskError> {
        let seq = self.begin(to, version, body, timeout_ms).await;
        self.answer(seq, timeout_ms).await
    }

    /// Asks. Returns the number of the question.
    pub async fn begin(&mut self, to: &Address, version: i16, body: impl Into<RequestBody>, timeout_ms: i64) -> u64 {
        self.asked += 1;
        let id = PeerId { owner: PeerOwner::Quorum, seq: self.asked };
        let ask = Ask { id, to: to.clone(), body: body.into(), versions: version..=version, timeout_ms };
        self.orders.lock().expect("a run has one thread").push(ask);
        let service = self.service.clone();
        let submitted = self.node.spawn(async move { service.shared().door.submit(Message::Input(Input::Tick)) });
        submitted.await.expect("the process is not killed while it asks");
        self.asked
    }

    /// Waits for the answer to a question that was asked just now.
    pub async fn answer(&mut self, seq: u64, timeout_ms: i64) -> Result<Answered, AskError> {
        let end = crate::now_ns() + timeout_ms as u64 * 1_000_000 + LATE_NS_MAX;
        loop {
            if let Some((came, result)) = self.answers.lock().expect("a run has one thread").remove(&seq) {
                assert!(came <= end, "question {seq} has its answer too late");
                let what = result.as_ref().map(|answered| answered.body.api_key());
                self.log.say(format_args!("host {}: question {seq}: {what:?}", self.host));
                return result;
            }
            assert!(crate::now_ns() <= end, "question {seq} has no answer");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends when no answer holds anything of the budget any more.
    pub async fn is_free(&self) {
        while self.service.shared().budget.held() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops cleanly: all links are closed.
    pub async fn stop(self) {
        let service = self.service.clone();
        self.node.spawn(async move { service.stop().await }).await.expect("it is not killed").expect("a clean stop");
        Handle::current().kill(self.node.id());
    }

    /// Kills the process. What it had asked has no answer.
    pub fn kill(self) {
        Handle::current().kill(self.node.id());
    }
}
