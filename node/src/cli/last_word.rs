//! How a cluster ended, by the last word of its node: the file `exit`.

use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::exit::{CliError, ExitStatus, Outcome};
use super::ps;
use super::session::Session;
use crate::log::account::Untold;
use crate::log::record::NODE_NAME;

/// What the node with this pid left as its last word, in a command that began at this Unix time.
pub(crate) fn verdict(session: &Session, pid: u32, began: f64) -> Outcome {
    match last_word(session, began) {
        Some(last) => {
            warn_of_losses(session, &last.lost);
            last.verdict()
        }
        None => Err(CliError::Failed {
            message: format!("the node (pid {pid}) was killed; its keeper ended what it left"),
            help: Some("`hilum logs --stream node` shows its last words".into()),
        }),
    }
}

/// The same for a command that waits for instances: an order to end came in its way.
pub(crate) fn forsaken(session: &Session, pid: u32, began: f64) -> Outcome {
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
pub(crate) fn spoke(session: &Session, began: f64) -> bool {
    last_word(session, began).is_some()
}

/// The lines that the node could not write down to its end, in a command that began at this Unix time.
pub(crate) fn losses(session: &Session, began: f64) -> Vec<Untold> {
    last_word(session, began).map(|last| last.lost).unwrap_or_default()
}

/// Says how many lines are lost, and whose.
pub(crate) fn warn_of_losses(session: &Session, lost: &[Untold]) {
    if !lost.is_empty() {
        session.out.warn(&told(lost));
    }
}

fn told(lost: &[Untold]) -> String {
    let lines = lost.iter().map(|one| one.lines).sum::<u64>();
    let lines = if lines == 1 { "1 line is".to_owned() } else { format!("{lines} lines are") };
    let each = lost.iter().map(|Untold { name, lines, why }| {
        let name = if &**name == NODE_NAME { "others" } else { name };
        format!("{lines} of {name} ({why})")
    });
    format!(
        "the log could not be written to its end, {lines} lost: {}; the next start notes it in the timeline",
        ps::list(&each.collect::<Vec<_>>())
    )
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
    #[serde(default)]
    lost: Vec<Untold>,
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

    #[test]
    fn what_could_not_be_written_is_told_with_whose_it_was() {
        let word = r#"{"code": 0, "lost": [{"name": "web.1", "lines": 12, "why": "disk full"}, {"name": "*", "lines": 3, "why": "disk full"}]}    "#;
        let word: LastWord = serde_json::from_str(word).unwrap();
        assert_eq!(
            told(&word.lost),
            "the log could not be written to its end, 15 lines are lost: 12 of web.1 (disk full), 3 of others (disk full); \
             the next start notes it in the timeline"
        );
    }
}
