//! What users rely on, one sentence a test, told in the simulated world.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::*;
use hilum_shared::config::template::Template;
use hilum_shared::protocol::control::{Await, AwaitState, Scale, ScaleTo, Targets, Wait};
use hilum_shared::signal::{Exit, Signal};
use hilum_shared::units::Bytes;

use super::action::Reply;
use super::fixtures::{cluster, needs, ready, service};
use super::input::{Input, ProbePurpose, Report, Request, RequestId, Reread};
use super::world::World;

mod change;
mod depend;
mod life;
mod passing;
mod registry;

const SECOND: Duration = Duration::from_secs(1);

fn named(target: &str) -> Targets {
    Targets { targets: vec![target.into()], deps: true, ..Targets::default() }
}

fn scale(world: &mut World, name: &str, count: i64) -> RequestId {
    let changes = vec![ScaleTo { service: name.into(), count, relative: false }];
    world.ask(Request::Scale(Scale { changes }))
}

fn reload(world: &mut World, cluster: Arc<Cluster>, dry_run: bool) {
    world.feed(Input::Reconfigure { reason: Reread::Saved, cluster, dry_run });
}

fn outcome(world: &World, id: RequestId) -> Vec<(String, String)> {
    match &world.replies[&id.0] {
        Reply::Outcome(outcome) => outcome
            .changed
            .iter()
            .map(|c| {
                (c.instance.clone().unwrap().to_string(), c.result.clone().unwrap_or_default())
            })
            .collect(),
        other => panic!("no outcome: {other:?}"),
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}
