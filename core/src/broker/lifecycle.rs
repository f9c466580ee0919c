//! The life of a broker in its cluster, as it and the active controller see it (KIP-631): it registers, catches up with
//! the metadata, recovers its logs, is unfenced, and sends heartbeats until it leaves the cluster.
//!
//! ```text
//!   Unregistered ─► CatchingUp ─► Recovering ─► Serving ─► Leaving ─► Left
//! ```
//!
//! The same messages are sent, whether the active controller is this node or another one.

use super::{Broker, Phase, Timer};
use crate::api::{Asker, Unanswered};
use crate::controller::{self, BrokerStart};
use crate::ids::Uuid;
use crate::io::{Level, Outbox, Part};
use crate::time::{Mono, Now};
use crate::wire::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationResponse};
use crate::wire::{ErrorCode, ResponseBody};
use tidelog_link::earliest;

const PART: Part = Part::Broker;
/// The pause between heartbeats of a broker that catches up, and before the second heartbeat of one that leaves.
const CATCHING_UP_MS: i64 = 10;
const LEAVING_MS: i64 = 50;
/// How long a broker waits until the controller lets it leave, as in Kafka.
const LEAVING_MS_MAX: i64 = 300_000;

/// Where a broker stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The log directories are not read yet, or this node is no broker.
    Unborn,
    Unregistered,
    /// It is registered, and does not know enough of the metadata yet.
    CatchingUp,
    Recovering,
    /// Its logs are open, so it may be unfenced.
    Serving,
    /// It asks the controller to move the leaders away.
    Leaving,
    Left,
}

/// The times of the configuration.
#[derive(Clone, Copy, Debug)]
struct Intervals {
    heartbeat_ms: i64,
    session_ms: i64,
    first_registration_ms: i64,
}

#[derive(Debug)]
pub struct Lifecycle {
    stage: Stage,
    intervals: Intervals,
    /// What this node tells of itself, from the moment on at which its log directories are read.
    start: Option<BrokerStart>,
    /// Whether the controller has not answered yet.
    is_asking: bool,
    /// Something is to be told at once, as soon as the controller has answered.
    hurry: bool,
    /// When the controller is asked next.
    next_at: Option<Mono>,
    /// The node ends if it is not registered by then.
    register_until: Mono,
    /// Why it is not registered yet.
    obstacle: String,
    /// When the controller has last answered a heartbeat.
    heard_at: Mono,
    /// When the broker began to leave, and whether the controller has answered since.
    left_at: Mono,
    is_leave_known: bool,
    controller: ControllerRegistration,
}

/// The registration of this node's controller (KIP-919).
#[derive(Debug, Default)]
struct ControllerRegistration {
    is_asking: bool,
    next_at: Option<Mono>,
}

impl Lifecycle {
    pub fn new(config: &crate::config::BrokerConfig) -> Self {
        Self {
            stage: Stage::Unborn,
            intervals: Intervals {
                heartbeat_ms: config.broker_heartbeat_interval_ms.into(),
                session_ms: config.broker_session_timeout_ms.into(),
                first_registration_ms: config.initial_broker_registration_timeout_ms.into(),
            },
            start: None,
            is_asking: false,
            hurry: false,
            next_at: None,
            register_until: Mono::ZERO,
            obstacle: "no active controller is known".to_owned(),
            heard_at: Mono::ZERO,
            left_at: Mono::ZERO,
            is_leave_known: false,
            controller: ControllerRegistration::default(),
        }
    }

    /// Whether this broker, in its present life, is registered. Until then, the one that is registered under its id is
    /// known not to run any more.
    pub fn is_registered(&self) -> bool {
        self.stage > Stage::Unregistered
    }

    /// Something is to be told at once.
    fn hurry(&mut self, now: Mono) {
        if self.is_asking {
            self.hurry = true;
        } else if self.is_alive() {
            self.next_at = Some(now);
        }
    }

    /// The controller is asked again after this pause.
    fn pause(&mut self, now: Mono, ms: i64) {
        let ms = if std::mem::take(&mut self.hurry) { 0 } else { ms };
        self.next_at = Some(now.plus_ms(ms));
    }

    fn is_alive(&self) -> bool {
        self.stage > Stage::Unborn && self.stage < Stage::Left
    }

    /// Until when a broker that leaves waits for the controller. Once its session has ended, the controller has moved the
    /// leaders away without being asked.
    fn leaves_by(&self) -> Option<Mono> {
        (self.stage == Stage::Leaving).then(|| {
            let session_end = self.heard_at.max(self.left_at).plus_ms(self.intervals.session_ms);
            session_end.min(self.left_at.plus_ms(LEAVING_MS_MAX))
        })
    }

    /// Whether [`Broker::live`] has something to do.
    pub fn is_due(&self, now: Mono) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    fn deadline(&self) -> Option<Mono> {
        let registered_by = (self.stage == Stage::Unregistered).then_some(self.register_until);
        let next_at = self.next_at.filter(|_| self.is_alive() && !self.is_asking);
        let controller = self.controller.next_at;
        earliest([registered_by, next_at, self.leaves_by(), controller])
    }
}

impl Broker {
    /// The log directories are read: the node begins to tell the controller of itself.
    pub(super) fn begin_life(&mut self, now: Now) {
        let start = self.parts.node_start();
        let life = &mut self.life;
        life.start = Some(start);
        if self.parts.config.roles.has_broker() {
            life.stage = Stage::Unregistered;
            life.register_until = now.mono.plus_ms(life.intervals.first_registration_ms);
            life.hurry(now.mono);
        }
        if self.parts.config.roles.has_controller() {
            life.controller.next_at = Some(now.mono);
        }
    }

    /// Does what is due, and sets the timer for what comes next.
    pub(super) fn live(&mut self, now: Now, out: &mut Outbox) {
        let life = &mut self.life;
        if life.stage == Stage::Unregistered && life.register_until <= now.mono {
            let ms = life.intervals.first_registration_ms;
            let why = format!(
                "this broker could not register with the active controller within \
                 initial.broker.registration.timeout.ms={ms}: {}",
                life.obstacle
            );
            return self.fatal(why, out);
        }
        if life.leaves_by().is_some_and(|until| until <= now.mono) {
            out.event(Level::Warn, PART, "no active controller has confirmed that this broker leaves its cluster");
            return self.left(now, out);
        }
        if life.is_alive() && !life.is_asking && life.next_at.is_some_and(|at| at <= now.mono) {
            self.tell_controller(now);
        }
        self.register_controller(now);
        self.watch_life();
    }

    pub(super) fn watch_life(&mut self) {
        let deadline = self.life.deadline();
        self.timers.set(Timer::Life, deadline);
    }

    /// Sends the registration or a heartbeat.
    fn tell_controller(&mut self, now: Now) {
        let offline = self.directories_failed();
        let cordoned = self.parts.directories_cordoned();
        let life = &mut self.life;
        let start = life.start.as_ref().expect("a node that lives has started");
        (life.is_asking, life.next_at) = (true, None);
        let interval_ms = life.intervals.heartbeat_ms;
        if life.stage == Stage::Unregistered {
            let request = start.broker_registration(&self.parts.cluster_id);
            return self.parts.channel.ask_for(now.mono, Asker::BrokerLife, request, interval_ms);
        }
        let request = BrokerHeartbeatRequest {
            broker_id: start.node_id.0,
            broker_epoch: self.parts.broker_epoch,
            current_metadata_offset: self.parts.committed.0 - 1,
            want_fence: life.stage < Stage::Serving,
            want_shut_down: life.stage == Stage::Leaving,
            offline_log_dirs: offline,
            cordoned_log_dirs: (!cordoned.is_empty()).then_some(cordoned),
            ..Default::default()
        };
        self.parts.channel.ask_for(now.mono, Asker::BrokerLife, request, interval_ms);
    }

    /// The log directories that were there at the start and have failed since.
    fn directories_failed(&self) -> Vec<Uuid> {
        let online = self.parts.directories_online();
        let registered = self.life.start.iter().flat_map(|start| start.log_dirs.iter().copied());
        registered.filter(|dir| !online.contains(dir)).collect()
    }

    /// The controller has answered the broker, or could not be asked.
    pub(super) fn life_answered(&mut self, now: Now, result: Result<ResponseBody, Unanswered>, out: &mut Outbox) {
        self.life.is_asking = false;
        match result {
            Ok(ResponseBody::BrokerRegistration(answer)) => self.registration_answered(now, answer, out),
            Ok(ResponseBody::BrokerHeartbeat(answer)) => self.heartbeat_answered(now, answer, out),
            Ok(other) => panic!("{:?} is no answer to a registration or a heartbeat", other.api_key()),
            Err(why) => self.life_failed(now, why, out),
        }
        self.watch_life();
    }

    fn registration_answered(&mut self, now: Now, answer: BrokerRegistrationResponse, out: &mut Outbox) {
        let life = &mut self.life;
        let error = ErrorCode::from_code(answer.error_code).unwrap_or(ErrorCode::UnknownServerError);
        if life.stage != Stage::Unregistered {
            return;
        }
        let why = match error {
            ErrorCode::None => {
                self.parts.broker_epoch = answer.broker_epoch;
                (life.stage, life.heard_at) = (Stage::CatchingUp, now.mono);
                return life.pause(now.mono, 0);
            }
            ErrorCode::DuplicateBrokerRegistration => {
                "another broker with this node.id is registered; if it was this one before a crash, its session ends \
                 within broker.session.timeout.ms"
            }
            // These do not pass.
            ErrorCode::InconsistentClusterId => {
                return self.refused("its cluster.id is not that of the active controller", error, out);
            }
            ErrorCode::UnsupportedVersion => {
                return self.refused("it does not support a feature level of the cluster", error, out);
            }
            ErrorCode::InvalidRegistration => {
                return self.refused("its listeners, log directories or features cannot be registered", error, out);
            }
            _ => "the active controller has refused it",
        };
        life.obstacle = format!("{why} ({})", error.name());
        out.event(Level::Warn, PART, format!("this broker is not registered: {}", life.obstacle));
        let ms = life.intervals.heartbeat_ms;
        life.pause(now.mono, ms);
    }

    fn refused(&mut self, why: &str, error: ErrorCode, out: &mut Outbox) {
        let more = "the log of the active controller says more";
        self.fatal(
            format!("this broker cannot be in the cluster of its log directories: {why} ({}); {more}", error.name()),
            out,
        );
    }

    fn heartbeat_answered(&mut self, now: Now, answer: BrokerHeartbeatResponse, out: &mut Outbox) {
        let life = &mut self.life;
        let interval_ms = life.intervals.heartbeat_ms;
        if answer.error_code != 0 {
            let error = ErrorCode::from_code(answer.error_code).map_or("an unknown error", ErrorCode::name);
            out.event(
                Level::Warn,
                PART,
                format!("the active controller has refused a heartbeat of this broker: {error}"),
            );
            return life.pause(now.mono, interval_ms);
        }
        life.heard_at = now.mono;
        match life.stage {
            Stage::CatchingUp if answer.is_caught_up => {
                life.stage = Stage::Recovering;
                life.pause(now.mono, interval_ms);
                self.open_partitions(now, out);
            }
            Stage::CatchingUp => life.pause(now.mono, CATCHING_UP_MS),
            Stage::Leaving if answer.should_shut_down => self.left(now, out),
            Stage::Leaving if !std::mem::replace(&mut life.is_leave_known, true) => life.pause(now.mono, LEAVING_MS),
            Stage::Recovering | Stage::Serving | Stage::Leaving => life.pause(now.mono, interval_ms),
            Stage::Unborn | Stage::Unregistered | Stage::Left => {}
        }
    }

    fn life_failed(&mut self, now: Now, why: Unanswered, out: &mut Outbox) {
        let life = &mut self.life;
        let text = match why {
            Unanswered::TimedOut => {
                "no active controller has answered in time; a majority of the voters must run, and \
                                     be reachable at the addresses of the controllers"
            }
            Unanswered::Unsupported => "the active controller serves no version of the request that this node knows",
            Unanswered::Refused(_) => panic!("only clients' requests are in envelopes"),
        };
        if life.stage == Stage::Unregistered {
            life.obstacle = text.to_owned();
        }
        out.event(Level::Info, PART, format!("the active controller was not told of this broker: {text}"));
        // The answer has taken as long as the pause.
        life.pause(now.mono, 0);
    }

    /// The logs are open: the broker may be unfenced.
    pub(super) fn ready_to_serve(&mut self, now: Now) {
        self.life.stage = Stage::Serving;
        self.life.hurry(now.mono);
        self.watch_life();
    }

    /// Whether the cluster knows that this broker serves.
    pub(super) fn is_unfenced(&self) -> bool {
        let broker = self.parts.image.broker(self.parts.config.node_id);
        broker.is_some_and(|broker| !broker.fenced && broker.broker_epoch == self.parts.broker_epoch)
    }

    /// A log directory has failed: the controller takes the replicas in it out of the ISRs, and places no new ones there
    /// (KIP-858).
    pub(super) fn tell_of_directories(&mut self, now: Now) {
        if self.life.is_registered() && !self.directories_failed().is_empty() {
            self.life.hurry(now.mono);
            self.watch_life();
        }
    }

    /// The broker asks the controller to move the leaders away. [`Self::left`] follows.
    pub(super) fn leave(&mut self, now: Now, out: &mut Outbox) {
        if self.life.stage != Stage::Serving || !self.parts.config.controlled_shutdown_enable {
            return self.left(now, out);
        }
        (self.life.stage, self.life.left_at) = (Stage::Leaving, now.mono);
        self.life.hurry(now.mono);
        self.watch_life();
    }

    fn left(&mut self, now: Now, out: &mut Outbox) {
        self.life.stage = Stage::Left;
        self.life.controller.next_at = None;
        self.watch_life();
        if matches!(self.phase, Phase::LeavingCluster) {
            self.close_logs(now, out);
        }
    }

    // The controller of this node.

    /// Asks for the registration of this node's controller, if the cluster has not the one of this life.
    fn register_controller(&mut self, now: Now) {
        let registration = &mut self.life.controller;
        if registration.is_asking || registration.next_at.is_none_or(|at| now.mono < at) {
            return;
        }
        registration.next_at = None;
        let start = self.life.start.as_ref().expect("a node that lives has started");
        if is_registered(&self.parts.image, start) {
            return;
        }
        registration.is_asking = true;
        let (request, ms) = (start.controller_registration(), self.life.intervals.heartbeat_ms);
        self.parts.channel.ask_for(now.mono, Asker::ControllerLife, request, ms);
    }

    /// The metadata has changed: it may be the first in which controllers are registered, or lack this one.
    pub(super) fn check_controller(&mut self, now: Now) {
        let has_role = self.parts.config.roles.has_controller() && self.life.stage != Stage::Left;
        let Some(start) = self.life.start.as_ref().filter(|_| has_role) else { return };
        let registration = &mut self.life.controller;
        if !registration.is_asking && registration.next_at.is_none() && !is_registered(&self.parts.image, start) {
            registration.next_at = Some(now.mono);
            self.watch_life();
        }
    }

    pub(super) fn controller_answered(&mut self, now: Now, result: Result<ResponseBody, Unanswered>, out: &mut Outbox) {
        let interval_ms = self.life.intervals.heartbeat_ms;
        let registration = &mut self.life.controller;
        registration.is_asking = false;
        let is_done = match result {
            Ok(ResponseBody::ControllerRegistration(answer)) => {
                if answer.error_code != 0 {
                    let why = answer.error_message.unwrap_or_default();
                    out.event(Level::Warn, PART, format!("the controller of this node is not registered: {why}"));
                }
                answer.error_code == 0
            }
            _ => false,
        };
        if self.life.stage != Stage::Left {
            self.life.controller.next_at = (!is_done).then(|| now.mono.plus_ms(interval_ms));
        }
        self.watch_life();
    }
}

/// Whether there is nothing to register: the cluster is too old for registrations of controllers, or has this one.
fn is_registered(image: &controller::Image, start: &BrokerStart) -> bool {
    let mut controllers = image.controllers();
    let is_known =
        controllers.any(|known| known.controller_id == start.node_id.0 && known.incarnation_id == start.incarnation_id);
    is_known || !controller::records::registers_controllers(image.metadata_version())
}
