//! `hilum`: the supervisor and its command line.

fn main() -> std::process::ExitCode {
    hilum_node::cli::main()
}
