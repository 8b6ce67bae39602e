//! How long a call takes, and its result if there is no answer.

use super::*;

/// The time that a loaded machine may add to a call.
const SLACK: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_gateway_that_is_down_is_told_at_once() {
    let gateway = TestGateway::start();
    gateway.refuse();
    let stripe = adapter(&gateway.url(), AMPLE);
    let (word, took) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "nothing happened");
    assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
    let (word, _) = timed(stripe.tokenize(&card("4242424242424242"), None)).await;
    assert_eq!(word, "nothing happened");
    gateway.accept();
    let (word, _) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "done");
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn a_restart_is_not_noticed() {
    let gateway = TestGateway::start();
    gateway.refuse();
    let stripe = adapter(&gateway.url(), AMPLE);
    let charge = taken("pay_1");
    let charging = timed(stripe.charge(&charge));
    let restart = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        gateway.accept();
    };
    let ((word, _), ()) = tokio::join!(charging, restart);
    assert_eq!(word, "done");
}

#[tokio::test]
async fn a_throttle_without_end_did_nothing_unless_something_was_lost_before() {
    let time = Duration::from_millis(2_500);
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), time);
    gateway.script([(Endpoint::Charge, Fault::Throttle); 20]);
    let (word, took) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "nothing happened");
    assert!(took < time + SLACK, "{took:?}");
    // It waited for the requested time.
    let received = gateway.calls(Endpoint::Charge).received;
    assert!((2..=3).contains(&received), "{received}");
    gateway.calm();
    gateway.script([(Endpoint::Charge, Fault::DropAfter)]);
    gateway.script([(Endpoint::Charge, Fault::Throttle); 20]);
    let (word, _) = timed(stripe.charge(&taken("pay_2"))).await;
    assert_eq!(word, "unknown");
    let ledger = gateway.ledger();
    assert!(ledger.charges_for("pay_1").is_empty());
    ledger.only_charge("pay_2");
}

#[tokio::test]
async fn a_refusal_after_something_was_lost_is_no_nothing_happened() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_secs(1));
    gateway.script([(Endpoint::Charge, Fault::Refuse(Duration::from_secs(3600)))]);
    let (word, took) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "unknown");
    assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_hung_call_is_asked_again_and_answered_when_it_is_done() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_secs(4));
    // Longer than an attempt's time: the second attempt finds the key in use, and then the answer.
    gateway.script([(Endpoint::Charge, Fault::Slow(Duration::from_millis(2_500)))]);
    let (word, took) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "done");
    assert!(took < Duration::from_secs(4) + SLACK, "{took:?}");
    gateway.ledger().only_charge("pay_1");
    assert!(gateway.calls(Endpoint::Charge).received >= 2);
}

#[tokio::test]
async fn a_call_that_hangs_for_good_is_unknown_and_its_retry_gets_the_answer() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_secs(1));
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "unknown");
    assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "unknown");
    gateway.release();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    let ledger = gateway.ledger();
    assert_eq!(
        ledger.only_charge("pay_1").intent_id,
        charged.transaction_id
    );
}

#[tokio::test]
async fn no_call_takes_longer_than_its_time() {
    let faults = [
        Fault::Hold,
        Fault::Throttle,
        Fault::ErrorBefore,
        Fault::DropBefore,
        Fault::StoredError,
    ];
    futures_util::future::join_all(faults.map(all_calls_end_in_time)).await;
}

async fn all_calls_end_in_time(fault: Fault) {
    let time = Duration::from_secs(1);
    let gateway = TestGateway::start();
    let charged = adapter(&gateway.url(), AMPLE)
        .charge(&held("pay_1"))
        .await
        .expect("a charge");
    let stripe = adapter(&gateway.url(), time);
    gateway.chaos_of(1, 100, &[fault]);
    let (card, charge) = (card("4242424242424242"), taken("pay_2"));
    let (taking, letting_go) = (capture(&charged, 1), cancel(&charged));
    let giving = refund(&charged, "ref_1", 1);
    let took = tokio::join!(
        timed(stripe.tokenize(&card, None)),
        timed(stripe.charge(&charge)),
        timed(stripe.capture(&taking)),
        timed(stripe.cancel(&letting_go)),
        timed(stripe.refund(&giving)),
        timed(stripe.find_charge(&charge)),
        timed(stripe.find_capture(&taking)),
        timed(stripe.find_cancel(&letting_go)),
        timed(stripe.find_refund(&giving)),
    );
    let took: [(String, Duration); 9] = took.into();
    for (call, (word, took)) in took.iter().enumerate() {
        assert!(
            *took < time + SLACK,
            "{fault:?}, call {call}: {word} after {took:?}"
        );
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_was_sent_nothing() {
    // A queue for one connection that is never accepted, so the kernel answers no further one.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let listener = socket.listen(0).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let _queued = tokio::net::TcpStream::connect(address)
        .await
        .expect("room for one");
    let time = Duration::from_secs(1);
    let stripe = adapter(&format!("http://{address}"), time);
    let (word, took) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "nothing happened");
    assert!(took > time / 4 && took < time + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_tls_handshake_that_fails_sent_nothing() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url().replace("http:", "https:"), AMPLE);
    let (word, _) = timed(stripe.charge(&taken("pay_1"))).await;
    assert_eq!(word, "nothing happened");
}

#[tokio::test]
async fn connections_are_kept() {
    let gateway = TestGateway::start();
    let door = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = door.local_addr().expect("its address");
    let behind = gateway.url().replace("http://", "");
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = opened.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let behind = behind.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(behind)
                    .await
                    .expect("the gateway");
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let stripe = adapter(&format!("http://{address}"), AMPLE);
    for number in 0..20 {
        let charge = taken(&format!("pay_{number}"));
        stripe.charge(&charge).await.expect("a charge");
    }
    assert_eq!(gateway.calls(Endpoint::Charge).received, 20);
    assert_eq!(opened.load(std::sync::atomic::Ordering::Relaxed), 1);
}
