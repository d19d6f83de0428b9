//! How long a session is waited for, and what seems to be wrong when none comes.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::registry::Patience;

/// How long a host may take to accept a connection.
const KNOCK: Duration = Duration::from_secs(1);
/// Between two looks at hosts that a command waits for.
const LOOK: Duration = Duration::from_millis(250);

impl Patience {
    fn limit(self) -> Duration {
        match self {
            Self::Service => Duration::from_secs(10),
            Self::Command => Duration::from_secs(3),
        }
    }

    /// Ends when it has been waited for long enough, with what is wrong.
    pub(super) async fn is_over(self, hosts: &str) -> String {
        let begun = Instant::now();
        loop {
            let (pause, gives_up) = match self {
                Self::Service => (self.limit(), false),
                Self::Command => (LOOK, true),
            };
            tokio::time::sleep(pause).await;
            let late = begun.elapsed() >= self.limit();
            if !late && !gives_up {
                continue;
            }
            let found = knock(hosts).await;
            if late || found.nobody {
                return found.text;
            }
        }
    }
}

/// What the hosts do when somebody comes.
pub(super) struct Found {
    /// What is wrong, as far as it can be seen.
    pub(super) text: String,
    /// None of them can be connected to.
    nobody: bool,
}

/// Connects to each of the hosts, which the client's own errors do not tell apart.
pub(super) async fn knock(hosts: &str) -> Found {
    let mut knocks = JoinSet::new();
    for host in hosts.split(',').map(str::to_owned) {
        knocks.spawn(async move {
            let answer = tokio::time::timeout(KNOCK, TcpStream::connect(&host)).await;
            (host, answer.map(|connected| connected.map(drop)))
        });
    }
    let mut all = knocks.join_all().await;
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let alone = all.len() == 1;
    let nobody = all.iter().all(|(_, answer)| matches!(answer, Ok(Err(_))));
    let said = all.into_iter().map(|(host, answer)| {
        let what = match answer {
            Ok(Ok(())) => "it takes connections, and gives no session".to_owned(),
            Ok(Err(error)) => plain(&error),
            Err(_) => "no answer".to_owned(),
        };
        if alone { what } else { format!("{host}: {what}") }
    });
    Found { text: said.collect::<Vec<_>>().join("; "), nobody }
}

/// `connection refused`, without the number of the system.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}
