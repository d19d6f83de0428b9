//! How a cluster ended, by the last word of its node.

use std::time::UNIX_EPOCH;

use serde::Deserialize;

use crate::cli::exit::{CliError, ExitStatus, Outcome};
use crate::cli::session::Session;

/// What the node with this pid left as its last word, in a command that began at this Unix time.
pub(super) fn verdict(session: &Session, pid: u32, began: f64) -> Outcome {
    match last_word(session, began) {
        Some(last) => last.verdict(),
        None => Err(CliError::Failed {
            message: format!("the node (pid {pid}) was killed; its keeper ended what it left"),
            help: Some("`hilum logs --stream node` shows its last words".into()),
        }),
    }
}

/// The same for a command that waits for instances: an order to end came in its way.
pub(super) fn forsaken(session: &Session, pid: u32, began: f64) -> Outcome {
    match last_word(session, began) {
        None => Err(CliError::Gone { pid }),
        Some(LastWord { code: 0, ordered: true, reason, .. }) => Err(CliError::Failed {
            message: format!("the node (pid {pid}) ended: {}", why(reason)),
            help: Some("`hilum up` starts it again".into()),
        }),
        Some(last) => last.verdict(),
    }
}

/// Whether the node has left a last word.
pub(super) fn spoke(session: &Session, began: f64) -> bool {
    last_word(session, began).is_some()
}

fn last_word(session: &Session, began: f64) -> Option<LastWord> {
    let path = session.project().ok()?.state.path().join("exit");
    let written =
        std::fs::metadata(&path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    // file systems round: a second is far below any node's life that matters
    if written.as_secs_f64() < began - 1.0 {
        return None;
    }
    serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
}

/// The file `exit` of the state folder.
#[derive(Debug, Deserialize)]
struct LastWord {
    code: i32,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    ordered: bool,
}

fn why(reason: Option<String>) -> String {
    reason.unwrap_or_else(|| "no reason given".into())
}

impl LastWord {
    fn verdict(self) -> Outcome {
        if self.code == 0 {
            return Ok(ExitStatus::Done);
        }
        let who = self.service.map_or_else(String::new, |service| format!("`{service}`: "));
        let how = if self.ordered { "the node ended" } else { "the cluster ended by itself" };
        let why = why(self.reason);
        Err(CliError::Failed {
            message: format!("{how}: {who}{why} (code {})", self.code),
            help: Some("`hilum crash` shows how it ended".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_ended_itself_says_whose_code_it_was() {
        let word: LastWord =
            serde_json::from_str(r#"{"code": 3, "reason": "exit 3", "service": "api"}"#).unwrap();
        let error = word.verdict().unwrap_err();
        assert_eq!(error.to_string(), "the cluster ended by itself: `api`: exit 3 (code 3)");
        assert_eq!(error.status(), ExitStatus::Failed);
        let word: LastWord =
            serde_json::from_str(r#"{"code": 0, "reason": "hilum down"}"#).unwrap();
        assert_eq!(word.verdict().unwrap(), ExitStatus::Done);
        let word = r#"{"code": 1, "reason": "its keeper, pid 7, was killed", "ordered": true}"#;
        let word: LastWord = serde_json::from_str(word).unwrap();
        let text = word.verdict().unwrap_err().to_string();
        assert_eq!(text, "the node ended: its keeper, pid 7, was killed (code 1)");
    }
}
