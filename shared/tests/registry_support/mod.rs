//! What every registry does, for the tests of all of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use hilum_shared::registry::{Instance, Instances, Lookup, Registry};

/// Longest wait for something that takes a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// An instance at a port.
pub(crate) fn instance(service: &str, port: u16) -> Instance {
    Instance::new(service, &format!("tcp://127.0.0.1:{port}"), None)
}

/// Waits until a view is as wanted.
pub(crate) async fn wait_for(
    lookup: &mut Lookup,
    wanted: impl Fn(&[Instance]) -> bool,
) -> Instances {
    let waited = tokio::time::timeout(LIMIT, lookup.wait_for(|now| wanted(now))).await;
    match waited {
        Ok(found) => found.unwrap(),
        Err(elapsed) => panic!("{elapsed}: still {:?}", lookup.instances()),
    }
}

/// What every registry does, seen by two who share it.
pub(crate) async fn conforms(ours: &dyn Registry, theirs: &dyn Registry) {
    let mut view = theirs.lookup("echo").await.unwrap();
    assert!(view.instances().is_empty(), "nobody there is no error");

    ours.register("echo", instance("echo", 1)).await.unwrap();
    assert_eq!(wait_for(&mut view, |now| now.len() == 1).await[0], instance("echo", 1));

    let mut with_more = instance("echo", 2);
    with_more.version = Some("1.5.0".into());
    with_more.log_endpoint = Some("tcp://127.0.0.1:9".into());
    with_more.more.insert("http_port".into(), 4080.into());
    theirs.register("echo", with_more.clone()).await.unwrap();
    let both = wait_for(&mut view, |now| now.len() == 2).await;
    assert!(both.contains(&with_more), "all keys, unknown ones too: {both:?}");

    let mut moved = instance("echo", 1);
    moved.ip = Some("10.0.0.1".into());
    ours.register("echo", moved.clone()).await.unwrap();
    let both = wait_for(&mut view, |now| now.contains(&moved)).await;
    assert_eq!(both.len(), 2, "the same id takes the other's place: {both:?}");

    ours.register("other", instance("other", 3)).await.unwrap();
    let all = theirs.discover().await.unwrap();
    // A node is found in its own registry.
    let names = all.keys().filter(|name| !["lymph", "node"].contains(&name.as_str()));
    assert_eq!(names.collect::<Vec<_>>(), ["echo", "other"]);
    assert_eq!(all["other"][..], [instance("other", 3)]);

    ours.unregister("echo", &moved.id).await.unwrap();
    ours.unregister("echo", "nobody").await.unwrap();
    assert_eq!(wait_for(&mut view, |now| now.len() == 1).await[0], with_more);
    let again = theirs.lookup("echo").await.unwrap();
    assert_eq!(again.instances()[..], [with_more.clone()]);

    theirs.unregister("echo", &with_more.id).await.unwrap();
    ours.unregister("other", &instance("other", 3).id).await.unwrap();
    wait_for(&mut view, <[Instance]>::is_empty).await;
    ours.register("echo", instance("echo", 4)).await.unwrap();
    wait_for(&mut view, |now| now.len() == 1).await;
    ours.unregister("echo", &instance("echo", 4).id).await.unwrap();
}
