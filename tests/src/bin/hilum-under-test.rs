//! The real `hilum`, under a name that this package may build.

fn main() -> std::process::ExitCode {
    hilum_node::cli::main()
}
