//! The connections that brokers open to other nodes. A node opens a connection as a client does.

use super::World;
use crate::client::OpenerInput;
use crate::network::End;
use crate::node::NodeLink;
use crate::trace::Digest;
use tidelog_client::{Address, Owed};
use tidelog_core::api::prepare_answer;
use tidelog_core::ids::{ConnId, LinkId};
use tidelog_core::io::{Input, LinkEvent, PeerRequest};
use tidelog_core::wire::encode_request;

impl World {
    pub(super) fn connect_link(&mut self, place: usize, link: LinkId, address: &Address) {
        let conn = self.connect(End::Node(place as u32), address);
        let process = self.nodes[place].process.as_mut().expect("it has just spoken");
        let before = process.links.insert(link, NodeLink { conn, owed: Owed::default() });
        assert!(before.is_none(), "a broker names no two links alike");
    }

    pub(super) fn send_on_link(&mut self, place: usize, link: LinkId, request: &PeerRequest, digest: &mut Digest) {
        let process = self.nodes[place].process.as_mut().expect("it has just spoken");
        // The broker has not been told yet that a link is lost; what it sends goes nowhere.
        let Some(link) = process.links.get_mut(&link) else { return };
        link.owed.asked(&request.header, &request.body);
        let conn = link.conn;
        let frame = encode_request(&request.header, &request.body).to_bytes().slice(4..);
        digest.bytes(&frame);
        self.send_request(conn, frame);
    }

    pub(super) fn hang_up(&mut self, place: usize, link: LinkId) {
        let process = self.nodes[place].process.as_mut().expect("it has just spoken");
        if let Some(link) = process.links.remove(&link) {
            self.break_connection(link.conn);
        }
    }

    /// Hands a broker what happened on a connection that it has opened, if it still uses the connection.
    pub(super) fn link_input(&mut self, place: usize, conn: ConnId, input: OpenerInput) {
        let is_open = self.network.get(conn).is_some_and(|connection| !connection.gone);
        let Some(process) = self.nodes[place].process.as_mut() else { return };
        let mut links = process.links.iter_mut();
        let Some((&link, state)) = links.find(|(_, link)| link.conn == conn) else { return };
        let mut digest = Digest::default();
        digest.number(link.0);
        let event = match input {
            OpenerInput::Connected | OpenerInput::Frame(_) if !is_open => return,
            OpenerInput::Connected => LinkEvent::Opened,
            OpenerInput::Frame(frame) => {
                digest.bytes(&frame);
                match state.owed.take_next() {
                    Some(asked) => LinkEvent::Answer(Box::new(prepare_answer(asked, frame))),
                    None => return self.violate("protocol", format!("node {place} was answered what it did not ask")),
                }
            }
            OpenerInput::Refused => LinkEvent::Lost("connection refused".into()),
            OpenerInput::Cut => LinkEvent::Lost("connection reset".into()),
        };
        if matches!(event, LinkEvent::Lost(_)) {
            process.links.remove(&link);
        }
        self.step_node(place, Input::Link(link, event), digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller_address;
    use crate::disk::Loss;
    use crate::network::NetworkOptions;
    use crate::random::Ratio;
    use crate::scenario::Scenario;
    use crate::trace::{At, Note, Sink, Trace};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use tidelog_core::plant::Plants;
    use tidelog_core::wire::messages::ApiVersionsRequest;
    use tidelog_core::wire::{ApiKey, RequestHeader, ResponseBody};

    /// Brokers give their own links lower numbers.
    const LINKS_OF_THE_TEST: u64 = 1_000_000;

    /// Tells the test what happens on its links.
    struct Listener(Sender<String>);

    impl Sink for Listener {
        fn note(&mut self, _: At, note: &Note<'_>) {
            let Note::Input { node, input: Input::Link(link, event) } = note else { return };
            let Some(link) = link.0.checked_sub(LINKS_OF_THE_TEST) else { return };
            let event = match event {
                LinkEvent::Opened => "opened".into(),
                LinkEvent::Lost(why) => why.clone(),
                LinkEvent::Answer(answer) => match &answer.read {
                    Ok((id, ResponseBody::ApiVersions(versions))) => format!("#{id}: {} keys", versions.api_keys.len()),
                    other => panic!("{other:?}"),
                },
            };
            self.0.send(format!("node {node}, link {link}: {event}")).expect("the test listens");
        }
    }

    /// Two nodes that listen for controllers.
    fn world(network: NetworkOptions) -> (World, Receiver<String>) {
        let (sender, told) = channel();
        let scenario = Scenario { nodes: 2, network, fault_ns: 1 << 60, ..Scenario::default() };
        let mut world = World::new(&scenario, Plants::default(), Trace::to(Box::new(Listener(sender))));
        while !world.nodes.iter().all(|node| node.accepts(1)) {
            world.advance();
        }
        (world, told)
    }

    /// The next thing that happens on a link.
    fn next(world: &mut World, told: &Receiver<String>) -> String {
        for _ in 0..10_000 {
            if let Ok(told) = told.try_recv() {
                return told;
            }
            world.advance();
        }
        panic!("nothing happens on a link");
    }

    fn ask(world: &mut World, link: LinkId, correlation_id: i32) {
        let (api_key, client_id) = (ApiKey::ApiVersions, Some("node".into()));
        let header = RequestHeader { api_key, api_version: 0, correlation_id, client_id };
        let request = PeerRequest { header, body: ApiVersionsRequest::default().into() };
        world.send_on_link(0, link, &request, &mut Digest::default());
    }

    #[test]
    fn a_node_asks_another_until_that_one_ends() {
        let (mut world, told) = world(NetworkOptions::CALM);
        let [first, second] = [1, 2].map(|link| LinkId(LINKS_OF_THE_TEST + link));
        world.connect_link(0, first, &controller_address(1));
        assert_eq!(next(&mut world, &told), "node 0, link 1: opened");
        let keys = tidelog_core::wire::versions::advertised(true).count();
        for id in [5, 6] {
            ask(&mut world, first, id);
            assert_eq!(next(&mut world, &told), format!("node 0, link 1: #{id}: {keys} keys"));
        }
        world.end_process(1, Loss::Process, 1 << 50);
        assert_eq!(next(&mut world, &told), "node 0, link 1: connection reset");
        world.connect_link(0, second, &controller_address(1));
        assert_eq!(next(&mut world, &told), "node 0, link 2: connection refused");
        let links = &world.nodes[0].process.as_ref().unwrap().links;
        assert!(links.keys().all(|link| link.0 < LINKS_OF_THE_TEST), "{links:?}");
    }

    #[test]
    fn nothing_is_told_of_a_link_that_was_hung_up_or_whose_node_has_ended_or_of_an_attempt_that_hangs() {
        let (mut world, told) = world(NetworkOptions { hang: Ratio::new(1, 1), ..NetworkOptions::CALM });
        let [hung_up, hangs, ended] = [1, 2, 3].map(|link| LinkId(LINKS_OF_THE_TEST + link));
        world.connect_link(0, hung_up, &controller_address(1));
        assert_eq!(next(&mut world, &told), "node 0, link 1: opened");
        ask(&mut world, hung_up, 1);
        world.hang_up(0, hung_up);
        world.connect_link(0, hangs, &Address::new("nobody", 1));
        world.connect_link(0, ended, &controller_address(1));
        world.end_process(0, Loss::Process, 1);
        (0..1_000).for_each(|_| world.advance());
        assert!(told.try_recv().is_err());
    }
}
