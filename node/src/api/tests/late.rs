//! A disk that stands: whoever asks for a change hears in time that it may still come.

use super::*;
use axum::body::Body;
use axum::http::{Request, StatusCode};

const RULE: &str = "[[rule]]\nname = \"smoke\"\non = [\"city.smoke\"]\nwhen = \"event.data.ppm > 5.0\"\n\
                    then = [{ raise = { title = \"Smoke\", severity = \"major\" } }]\n";

fn opened(dir: &std::path::Path) -> (Config, citybrain_hub::Hub, engine::Engine) {
    let text = format!("[node]\naddress = \"c/s\"\ndata = \"{}\"\n{RULE}", dir.display());
    let config = parse(&text, &Variables::new()).config.unwrap();
    let (hub, engine, _) = engine::open(&config, Brain::make(&config)).unwrap();
    (config, hub, engine)
}

fn alarm(hub: &citybrain_hub::Hub) -> Option<String> {
    hub.state(|state| Brain::of(state)?.rules.alarms.iter().next().map(|alarm| alarm.id.clone()))
}

/// A folder in which an alarm was raised.
fn with_alarm(dir: &std::path::Path) -> String {
    let (config, hub, engine) = opened(dir);
    let engine = std::thread::spawn(move || engine.run());
    let smoke =
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/c/s/x\",\"type\":\"city.smoke\",\"data\":{\"ppm\":9}}";
    let draft = Ingress::new(&config).accept(&Bytes::from_static(smoke.as_bytes())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let presence = presence(&config, &hub);
    runtime.block_on(async { engine::wait(hub.offer(vec![presence, draft]).await.unwrap()).await }).unwrap();
    let id = wait_for(|| alarm(&hub));
    runtime.block_on(hub.stop());
    engine.join().unwrap();
    id
}

#[test]
fn an_alarm_acknowledged_while_the_disk_stands_is_answered_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_alarm(dir.path());
    // Its engine takes what is handed in, and commits nothing: as it is while an fsync hangs.
    let (config, hub, _engine) = opened(dir.path());
    let (_stop, stopped) = watch::channel(false);
    let routes = super::super::routes(Arc::new(ctx(config, &hub, stopped)));
    let routes = routes.layer(axum::Extension(crate::api::guard::Caller::Operator));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (answer, body) = runtime.block_on(async {
        let request = Request::post(format!("/v1/alarms/{id}/ack")).body(Body::from("{\"by\":\"Li\"}"));
        let asked = tower_service::Service::call(&mut routes.clone(), request.unwrap());
        // The clock runs only while everybody waits.
        let answer = tokio::time::timeout(Duration::from_secs(12), asked).await.expect("answered within 12 s").unwrap();
        (answer.status(), axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap())
    });
    assert_eq!(answer, StatusCode::GATEWAY_TIMEOUT);
    let failure: view::Failure = serde_json::from_slice(&body).unwrap();
    assert_eq!(failure.error, "deadline");
    assert!(failure.hint.contains(&format!("alarm show {id}")), "{}", failure.hint);
}
