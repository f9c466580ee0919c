//! Connections: how many there may be, and how long each may be idle.

use madsim::time::{Duration, sleep, timeout};
use std::io;
use tidelog_madsim::network::BROKER;
use tidelog_madsim::now_ns;
use tidelog_madsim::runs::check;

/// Longer than everything takes here, unless a test delays it.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_connection_too_many_from_one_address_is_closed_at_once() {
    check("a_connection_too_many_from_one_address_is_closed_at_once", |mut world| async move {
        world.start(&[("max.connections.per.ip", "2")]).await;
        let mut first = world.client(1).await;
        let mut second = world.client(1).await;
        first.ping().await.unwrap();
        second.ping().await.unwrap();
        let mut third = world.client(1).await;
        third.closed(SOON).await.expect("an orderly end");
        let mut elsewhere = world.client(2).await;
        elsewhere.ping().await.unwrap();

        if world.random.one_in(2) {
            drop(first)
        } else {
            drop(second)
        }
        sleep(SOON).await;
        world.client(1).await.ping().await.unwrap();
    });
}

#[test]
fn a_connection_beyond_max_connections_waits_until_another_closes() {
    check("a_connection_beyond_max_connections_waits_until_another_closes", |mut world| async move {
        world.start(&[("max.connections", "2")]).await;
        let mut clients = vec![world.client(1).await, world.client(2).await];
        for client in &mut clients {
            client.ping().await.unwrap();
        }
        // Three clients wait: each is served when its turn comes, and none is refused.
        let mut waiting = Vec::new();
        for host in 3..6 {
            let mut client = world.client(host).await;
            let (correlation_id, frame) = client.ping_frame();
            client.write(&frame).await.unwrap();
            // The order of waiting is the order in which the broker's host completes the handshakes.
            sleep(Duration::from_millis(100)).await;
            waiting.push((client, correlation_id));
        }
        for (client, _) in &mut waiting {
            assert!(timeout(SOON, client.receive_frame()).await.is_err(), "served beyond the limit");
        }
        for (mut client, correlation_id) in waiting {
            clients.remove(world.random.below(2) as usize);
            client.receive_ping(correlation_id).await.unwrap();
            clients.push(client);
        }
        for client in &mut clients {
            client.ping().await.unwrap();
        }
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_or_works_is_not() {
    check("an_idle_connection_is_closed_and_one_that_waits_or_works_is_not", |mut world| async move {
        const IDLE_MAX: Duration = Duration::from_secs(3);
        world.start(&[("connections.max.idle.ms", "3000")]).await;
        let mut waiting = world.client(2).await;
        waiting.create_topic("events").await;
        let mut working = world.client(3).await;
        working.ping().await.unwrap();
        let mut idle = world.client(1).await;
        idle.ping().await.unwrap();
        let since = now_ns();

        let (correlation_id, frame) = waiting.fetch_frame("events", 0, 9_000, 1_000);
        waiting.write(&frame).await.unwrap();
        let ended = madsim::task::spawn(async move {
            idle.closed(2 * IDLE_MAX).await.expect("an orderly end");
            Duration::from_nanos(now_ns() - since)
        });
        while now_ns() - since < 8_000_000_000 {
            working.ping().await.unwrap();
            sleep(Duration::from_millis(world.random.between(100, 2_000))).await;
        }
        let lived = ended.await.unwrap();
        assert!(lived + Duration::from_millis(100) > IDLE_MAX && lived < IDLE_MAX + SOON, "closed after {lived:?}");
        assert_eq!(waiting.receive_fetch(correlation_id).await.unwrap().0.len(), 0);
        working.ping().await.unwrap();
    });
}

#[test]
fn a_client_that_vanished_makes_room_for_another() {
    check("a_client_that_vanished_makes_room_for_another", |mut world| async move {
        world.start(&[("max.connections", "1"), ("connections.max.idle.ms", "5000")]).await;
        let mut lost = world.client(1).await;
        lost.ping().await.unwrap();
        // The link is cut in the middle of a frame, and the broker never hears of it.
        let (_, frame) = lost.ping_frame();
        lost.write(&frame[..world.random.between(0, frame.len() as u64 - 1) as usize]).await.unwrap();
        sleep(Duration::from_millis(world.random.between(0, 50))).await;
        world.network.cut(1, BROKER);
        world.network.cut(BROKER, 1);

        let mut next = world.client(2).await;
        let asked = now_ns();
        next.ping().await.unwrap();
        assert!(now_ns() - asked > 3_000_000_000, "the place was not free yet");

        // When the link is mended, the client learns that its connection was closed.
        world.network.mend();
        let end = lost.closed(SOON).await;
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
        next.ping().await.unwrap();
    });
}
