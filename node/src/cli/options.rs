//! The global options, which every verb has.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::output::ColorChoice;

// Options that may stand before or after the command; both places are merged. No doc comment: clap would show it as
// what each verb does.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Common {
    /// Configuration file; several are merged in order [env: HILUM_CONFIG, LYMPH_CONFIG]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Vec<PathBuf>,
    /// File with values for `$(var.…)`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vars: Option<PathBuf>,
    /// File with environment variables, read besides `.env`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Vec<PathBuf>,
    /// Start services of this profile, too [env: HILUM_PROFILES]
    #[arg(long, value_name = "P", value_delimiter = ',')]
    pub(crate) profile: Vec<String>,
    /// When to use colour
    #[arg(long, value_name = "WHEN", value_enum, num_args = 0..=1, default_missing_value = "always")]
    pub(crate) color: Option<ColorChoice>,
    /// As `--color never`
    #[arg(long, hide = true, conflicts_with = "color")]
    pub(crate) no_color: bool,
    /// Print JSON; what is said on stderr is objects, too
    #[arg(long)]
    pub(crate) json: bool,
    /// Only results and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Say more; twice for still more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Level of the node's own diagnostics: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", value_parser = diagnostics_level)]
    pub(crate) loglevel: Option<String>,
    /// File for the node's own diagnostics
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) logfile: Option<PathBuf>,
}

/// clap's parser of `--loglevel`.
fn diagnostics_level(text: &str) -> Result<String, String> {
    match super::loglevel::level(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err(format!("`{text}` is no level: write `error`, `warn`, `info`, `debug` or `trace`"))
        }
    }
}

impl Common {
    /// When to use colour.
    pub(crate) fn color(&self) -> ColorChoice {
        if self.no_color { ColorChoice::Never } else { self.color.unwrap_or_default() }
    }

    /// Adds what was given after the command to what was given before it.
    pub(crate) fn merge(&mut self, later: Self) {
        self.config.extend(later.config);
        self.vars = later.vars.or(self.vars.take());
        self.env_file.extend(later.env_file);
        self.profile.extend(later.profile);
        self.color = later.color.or(self.color);
        self.no_color |= later.no_color;
        self.json |= later.json;
        self.quiet |= later.quiet;
        self.verbose = self.verbose.saturating_add(later.verbose);
        self.loglevel = later.loglevel.or(self.loglevel.take());
        self.logfile = later.logfile.or(self.logfile.take());
    }
}
