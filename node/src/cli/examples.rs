//! Examples for `--help` and the man pages, of the commands that do not bring their own. One place,
//! so that a test can show that every command has one and that each of them is understood.

use clap::Command;

/// Examples that a group shows of its commands.
const OF_GROUP: usize = 4;

/// Words of the command, and lines: what to type, two blanks or more, what it answers.
const EXAMPLES: &[(&str, &str)] = &[
    ("run", "citybrain run --config /etc/citybrain/city.toml    until SIGTERM or ctrl-c"),
    (
        "check",
        "citybrain check /etc/citybrain/city.toml    one file\n\
         citybrain check config/city.toml config/street.toml    a tree of them: ports, addresses, who is whose parent",
    ),
    ("demo", "citybrain demo --input la311.csv    a real day instead of the generated one"),
    (
        "replay",
        "citybrain replay la311.csv --rate 500    into the node here, and on from where it was stopped\n\
         citybrain replay day.ndjson --http http://10.0.0.5:8080    events by HTTP",
    ),
    (
        "supervision",
        "citybrain supervision --days 30    what is overdue or suspended, was reopened, and where the same is told again and again\n\
         citybrain supervision --under chengdu/liucheng --category SJ0102    of one street, of one kind",
    ),
    (
        "bench",
        "citybrain bench --dir /var/lib/citybrain-bench    how fast does this disk commit? In a new folder, removed again",
    ),
    (
        "send",
        "citybrain send --target 'chengdu/**@neighbourhood' --type city.notice --data '{\"text\":\"停水\"}'    a notice\n\
         citybrain send --target chengdu/liucheng --directive command --ttl 5m --urgent    a command with a time budget",
    ),
    ("directives list", "citybrain directives list --limit 5    what was sent down, and who has answered"),
    ("directives show", "citybrain directives show 01990f7e    who of those meant is silent?"),
    ("alarm list", "citybrain alarm list --severity major --unacknowledged    what has nobody seen yet?"),
    ("alarm show", "citybrain alarm show 7f3a    one, with all that is known of it"),
    ("alarm ack", "citybrain alarm ack 7f3a --by anna    somebody has seen it"),
    ("alarm clear", "citybrain alarm clear 7f3a --by anna    it is over"),
    ("alarm shelve", "citybrain alarm shelve 7f3a --for 8h    out of sight for the night"),
    ("cap list", "citybrain cap list    which warnings are in force?"),
    ("cap show", "citybrain cap show met-1    one, with its messages and who was told"),
    (
        "cap send",
        "citybrain cap send storm.xml --yes    to those whom its areas name; `-` reads it from another program",
    ),
    ("cap cancel", "citybrain cap cancel met-1 --note 雨停了    over before its time"),
    ("cap alarm", "citybrain cap alarm 7f3a    an alarm of ours, for those who speak CAP"),
    ("sos", "citybrain sos 7栋301 --note 老人摔倒 --phone 13900000000    at once to everybody who can help"),
    (
        "case new",
        "citybrain case new --category 暴露垃圾 --title 三号门堆了垃圾 --by 小张 --name 王大妈 --phone 13900000000    opens one",
    ),
    ("case list", "citybrain case list --status open --overdue    what is late?"),
    ("case show", "citybrain case show 20261129-59wv    history, clocks, and what it takes now"),
    (
        "case accept",
        "citybrain case accept 20261129-59wv --by 小张 --contacted    it is ours, and the resident was called",
    ),
    ("case reject", "citybrain case reject 20261129-59wv --by 小张 --reason 不属于本辖区    not ours"),
    (
        "case dispatch",
        "citybrain case dispatch 20261129-59wv --by 小张 --unit 环卫所    to a unit here\n\
         citybrain case dispatch 20261129-59wv --by 小张 --to chengdu/liucheng/guanghua    to another node",
    ),
    ("case start", "citybrain case start 20261129-59wv --by 老赵    work begins"),
    ("case contact", "citybrain case contact 20261129-59wv --by 老赵    the resident was called"),
    (
        "case resolve",
        "citybrain case resolve 20261129-59wv --by 老赵 --result 已清 --evidence photo-after=https://p.example/7.jpg    done",
    ),
    ("case verify", "citybrain case verify 20261129-59wv --by 老李 --passed    seen on the spot"),
    (
        "case evaluate",
        "citybrain case evaluate 20261129-59wv --by 小张 --solved solved --satisfied yes    by telephone",
    ),
    ("case close", "citybrain case close 20261129-59wv --by 老李    not by whoever handled it"),
    (
        "case return",
        "citybrain case return 20261129-59wv --by 老赵 --reason 不归我们管    back to whoever dispatched it",
    ),
    (
        "case suspend",
        "citybrain case suspend 20261129-59wv --by 老赵 --reason 等配件 --approved-by 老李    its clocks stand still",
    ),
    ("case resume", "citybrain case resume 20261129-59wv --by 老赵    they go on"),
    (
        "case extend",
        "citybrain case extend 20261129-59wv --by 老赵 --limit 2wd --reason 量大 --approved-by 老李    two working days more",
    ),
    (
        "case assist",
        "citybrain case assist 20261129-59wv --by 老赵 --unit 车队 --limit 2h --reason 要车    summons a unit",
    ),
    ("case report", "citybrain case report 20261129-59wv --by 车队 --result 车已到    the unit is done"),
    ("case rate", "citybrain case rate 20261129-59wv --by 老赵 --rating 5    how the unit did"),
    (
        "case escalate",
        "citybrain case escalate 20261129-59wv --by 小张 --reason 反复 --hand-over    the tier above takes it",
    ),
    ("case reopen", "citybrain case reopen 20261129-59wv --by 小张 --reason 又堆了    not solved after all"),
    ("case withdraw", "citybrain case withdraw 20261129-59wv --by 小张 --reason 居民撤诉    no longer wanted"),
    ("case merge", "citybrain case merge 20261129-59wv --by 小张 --into 20261128-k3pd    the same matter as another"),
    (
        "case comment",
        "citybrain case comment 20261129-59wv --by 老赵 --text 明天再去 --evidence https://p.example/8.jpg    a word",
    ),
    ("case recall", "citybrain case recall 20261129-59wv --by 小张    back from the way to another node"),
    (
        "case exclude",
        "citybrain case exclude 20261129-59wv --by 小张 --reason 不可抗力 --approved-by 老李    left out of the rates",
    ),
    ("case forget", "citybrain case forget 20261129-59wv --by 老李    names and numbers go for good; it asks first"),
    ("case stats", "citybrain case stats --by category    how many of each, and how long they took"),
    (
        "case import",
        "citybrain case import old-system.csv --mapping old-system.toml    each to the node that it belongs to; again is harmless",
    ),
    ("case export", "citybrain case export --status open    as CSV, for a spreadsheet"),
    (
        "rates",
        "citybrain rates --by node --period month    response, solution, satisfaction\n\
         citybrain rates --by child --of 2026-11 --compare    and how it was in October, and a year ago\n\
         citybrain rates --by child --show closing    结案率: closed, and in time, of those that were due",
    ),
    ("service list", "citybrain service list --search 理发    what is offered here and above"),
    ("service show", "citybrain service show haircut    what is free, and what is asked"),
    (
        "service request",
        "citybrain service request haircut --slot '2026-11-30 09:00' --by 王大妈 --phone 13900000000    asks for it",
    ),
    ("scene list", "citybrain scene list    what belongs together"),
    ("rule list", "citybrain rule list --at chengdu/liucheng    the rules in force there, and what they have done"),
    ("rule test", "citybrain rule test city.toml --events day.ndjson    what would they have done that day?"),
    ("rule reload", "citybrain rule reload --yes    the file's rules and offers, without a stop"),
    ("dlq list", "citybrain dlq list --reason not-json    what was refused because it is no JSON?"),
    ("dlq show", "citybrain dlq show 1207    what exactly was sent"),
    ("dlq retry", "citybrain dlq retry 1207 1208    now that the config is right"),
    ("dlq drop", "citybrain dlq drop 1207    looked at, and nothing is to be done"),
    ("webhook skip", "citybrain webhook skip hotline 88103    its receiver cannot take that one"),
    (
        "user add",
        "citybrain user add lamp-7 --role sensor --file /etc/citybrain/users    a device; asks for its password\n\
         citybrain user add liucheng --address chengdu/liucheng --file /etc/citybrain/users    a child node's account",
    ),
    ("user passwd", "citybrain user passwd lamp-7 --file /etc/citybrain/users    another password"),
    ("user list", "citybrain user list --file /etc/citybrain/users    who may log in, and as what"),
    ("user remove", "citybrain user remove lamp-7 --yes --file /etc/citybrain/users    disconnected within a second"),
    ("preset list", "citybrain preset list    the devices that are known"),
    ("preset show", "citybrain preset show zigbee2mqtt    what to set at the devices"),
    (
        "preset try",
        "citybrain preset try zigbee2mqtt/lift-door '{\"contact\":false}'    what would become of this message?",
    ),
    ("store verify", "citybrain store verify /var/lib/citybrain/city    is every record good?"),
    ("store stats", "citybrain store stats /var/lib/citybrain/city    how much, and how old"),
    ("store rebuild", "citybrain store rebuild /var/lib/citybrain/city    the state anew from snapshot and log"),
    ("store snapshot", "citybrain store snapshot /var/lib/citybrain/city /backup/city-2026-07-01    while it runs"),
    ("store restore", "citybrain store restore /backup/city-2026-07-01 /var/lib/citybrain/city    of a stopped node"),
    (
        "doctor",
        "citybrain doctor    the node here and its machine\n\
         citybrain doctor --config /etc/citybrain/city.toml    before a start\n\
         citybrain doctor --bundle node.tar    somebody else's, from a bundle",
    ),
    ("doctor bundle", "citybrain doctor bundle node.tar --data-dir /var/lib/citybrain/city    for somebody elsewhere"),
    ("top", "citybrain top --at chengdu/liucheng    the live screen of a street; q ends it"),
    (
        "log-level",
        "citybrain log-level    what is logged now\n\
         citybrain log-level citybrain_hub::link=debug,info --at chengdu/liucheng    more of one street's links",
    ),
    ("config show", "citybrain config show --effective    with every default; passwords are left out"),
    ("config reload", "citybrain config reload --yes    the file's rules and offers, without a stop"),
    ("config diff", "citybrain config diff /etc/citybrain/city.toml    what would a restart change?"),
    (
        "context add",
        "citybrain context add city https://10.0.0.5:8080 --token-file mia.token --ca city-ca.pem    a name for it",
    ),
    ("context use", "citybrain context use city    asked from now on"),
    ("context list", "citybrain context list    all, and which one is used"),
    ("context remove", "citybrain context remove city    forgets it"),
    (
        "token add",
        "citybrain token add mia --role reader --file /etc/citybrain/tokens    shown once, on standard output",
    ),
    ("token list", "citybrain token list --file /etc/citybrain/tokens    whose there are"),
    ("token remove", "citybrain token remove mia --file /etc/citybrain/tokens    refused from the next request on"),
    ("man", "citybrain man /usr/share/man/man1    a page for each command"),
    (
        "completions",
        "citybrain completions bash    for /etc/bash_completion.d/citybrain\n\
         citybrain completions zsh    for /usr/local/share/zsh/site-functions/_citybrain\n\
         citybrain completions fish    for /etc/fish/completions/citybrain.fish",
    ),
    ("version", "citybrain version --at 'chengdu/**'    of every node below"),
];

/// The command line with its examples.
pub fn with(command: Command) -> Command {
    let command = EXAMPLES.iter().fold(command, |command, (path, lines)| {
        let words: Vec<&str> = path.split(' ').collect();
        put(command, &words, &text(lines))
    });
    command.mut_subcommands(|below| match below.has_subcommands() && below.get_after_help().is_none() {
        true => {
            let lines = of_group(&below);
            below.after_help(text(&lines))
        }
        false => below,
    })
}

/// The first line of its commands' examples.
fn of_group(group: &Command) -> String {
    let help = group.get_subcommands().filter_map(|below| Some(below.get_after_help()?.to_string()));
    let first = help.filter_map(|help| Some(help.lines().map(str::trim).find(|l| is_example(l))?.to_owned()));
    first.take(OF_GROUP).collect::<Vec<_>>().join("\n")
}

fn is_example(line: &str) -> bool {
    line.starts_with("citybrain ")
}

fn put(command: Command, path: &[&str], text: &str) -> Command {
    match path {
        [] => command.after_help(text.to_owned()),
        [first, rest @ ..] => command.mut_subcommand(first, |below| put(below, rest, text)),
    }
}

fn text(lines: &str) -> String {
    let head = if lines.contains('\n') { "Examples:" } else { "Example:" };
    let lines: String = lines.lines().map(|line| format!("\n  {line}")).collect();
    format!("{head}{lines}")
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::{CommandFactory, Parser};

    /// Every example in a command's help, with the words of the command.
    fn found(command: &Command, path: &str, into: &mut Vec<(String, Vec<String>)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().map(str::trim).filter(|l| is_example(l)).map(str::to_owned).collect();
        into.push((path.to_owned(), lines));
        for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
            found(below, format!("{path} {}", below.get_name()).trim(), into);
        }
    }

    /// As a shell splits it, as far as the examples need that.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty())),
                c => word.push(c),
            }
        }
        words.extend(Some(word).filter(|w| !w.is_empty()));
        words
    }

    #[test]
    fn every_command_has_an_example_and_every_example_is_understood() {
        let mut all = Vec::new();
        found(&with(Cli::command()), "", &mut all);
        for (path, lines) in &all {
            assert!(path.is_empty() || !lines.is_empty(), "`{path}` has no example");
            for line in lines {
                // What it answers stands behind two blanks or more; a pipe is the shell's.
                let typed = line.split("  ").next().unwrap_or(line).split(" | ").next().unwrap_or(line);
                assert!(typed.starts_with(&format!("citybrain {path}")), "`{typed}` is no example of `{path}`");
                if let Err(e) = Cli::try_parse_from(words(typed)) {
                    panic!("`{typed}` is not understood: {e}");
                }
            }
        }
    }
}
