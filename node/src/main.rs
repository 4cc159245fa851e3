fn main() -> std::process::ExitCode {
    citybrain_node::cli::main()
}
