//! Link messages: for the driver and for nobody else.

use super::*;

#[tokio::test]
async fn link_traffic_goes_to_the_driver_and_to_nobody_else() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut spy = house.client(Version::V4, "spy", true).await;
    spy.subscribe("#", 0).await;
    spy.subscribe("citybrain/+/up/#", 0).await;
    assert_eq!(spy.subscribe("citybrain/v1/up/#", 0).await, 0x80);
    let mut child = house.client(Version::V4, "child", true).await;
    assert_eq!(child.subscribe("citybrain/v1/upack/c/s", 1).await, 0);
    child.publish("citybrain/v1/hello/c/s", b"hi", 1, 1, true).await;
    child.acked(kind::PUBACK, 1).await;
    // The driver comes later and sees the retained hello.
    let mut driver = house.door.local();
    let m = driver.recv().await.unwrap();
    assert_eq!((m.topic.as_str(), &m.payload[..], m.closed), ("citybrain/v1/hello/c/s", &b"hi"[..], false));
    child.publish("citybrain/v1/up/c/s", &vec![b'f'; 900_000], 1, 2, false).await;
    assert_eq!(driver.recv().await.unwrap().payload.len(), 900_000);
    child.acked(kind::PUBACK, 2).await;
    driver.publish("citybrain/v1/upack/c/s", Bytes::from_static(b"ok"), false);
    assert_eq!(child.got().await.payload, "ok");
    child.publish("citybrain/v1/up/NOBODY", b"f", 1, 3, false).await;
    child.acked(kind::PUBACK, 3).await;
    drop(child);
    let m = driver.recv().await.unwrap();
    assert!(m.closed && m.client == "child", "{m:?}");
    spy.hears_nothing().await;
    house.close().await;
}

#[tokio::test]
async fn a_full_driver_holds_back_its_child_and_nobody_else() {
    let fake = Fake::new();
    let house = House::open(&fake).await;
    let mut driver = house.door.local();
    let mut child = house.client(Version::V4, "child", true).await;
    for id in 1..=100u16 {
        child.publish("citybrain/v1/up/c/s", &id.to_be_bytes(), 1, id, false).await;
    }
    let mut other = house.client(Version::V4, "other", true).await;
    other.publish_acked("x", b"1", 1).await;
    for id in 1..=100u16 {
        assert_eq!(&driver.recv().await.unwrap().payload[..], id.to_be_bytes());
    }
    for id in 1..=100 {
        child.acked(kind::PUBACK, id).await;
    }
    house.close().await;
}
