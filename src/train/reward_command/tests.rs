use std::os::unix::fs::PermissionsExt;

use std::thread;
use std::time::Duration;

use super::pool::MOST_FAILURES;
use super::*;

/// Answers with the length of the program, and misbehaves if the program says so.
const COMMAND: &str = r#"
import json, os, sys, time

for line in sys.stdin:
    part = json.loads(line)
    program, answer = part["program"], {"id": part["id"], "reward": len(part["program"])}
    if program == "die":
        os._exit(3)
    elif program == "hang":
        time.sleep(1000)
    elif program == "silent":
        continue
    elif program == "rubbish":
        print("hello", flush=True)
    elif program == "nan":
        print(json.dumps({"id": part["id"], "reward": float("nan")}), flush=True)
    elif program == "huge":
        print(json.dumps({"id": part["id"], "reward": 1e300}), flush=True)
    elif program == "other":
        print(json.dumps({"id": part["id"] + 1, "reward": 1}), flush=True)
    elif program == "endless":
        while True:
            sys.stdout.write("x" * 4096)
    else:
        print(json.dumps(answer), flush=True)
    if program == "twice":
        print(json.dumps(answer), flush=True)
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A configuration whose command is this Python program.
    fn config(&self, program: &str) -> RewardConfig {
        let path = self.0.path().join("my_reward.py");
        std::fs::write(&path, program).unwrap();
        RewardConfig {
            command: format!("python3 {}", path.display()),
            command_timeout_s: 1.0,
            command_start_s: 30.0,
            ..RewardConfig::default()
        }
    }

    fn start(&self, config: &RewardConfig) -> Result<RewardCommand> {
        RewardCommand::new(config, &self.0.path().join("reward_command"), 0, None)
    }
}

fn requests(programs: &[&str]) -> Vec<Request> {
    let request = |program: &&str| Request {
        id: 0,
        part: "part".into(),
        image: "picture.png".into(),
        program: (*program).to_owned(),
        outcome: "solid",
        volume: Some(2.0),
        bounds: Some([[0.0; 3], [1.0, 1.0, 2.0]]),
        iou: None,
    };
    programs.iter().map(request).collect()
}

/// Failures and restarts since the last call.
fn counts(command: &RewardCommand) -> (f64, f64) {
    let numbers = command.numbers(&World::single()).unwrap();
    (numbers.get("reward_command/failures"), numbers.get("reward_command/restarts"))
}

#[test]
fn answers_come_in_the_order_of_the_requests_from_any_number_of_processes() {
    let place = Place::new();
    for processes in [1, 3] {
        let config = RewardConfig { command_processes: processes, ..place.config(COMMAND) };
        let command = place.start(&config).unwrap();
        let programs: Vec<String> = (1..40).map(|length| "x".repeat(length)).collect();
        let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
        for _ in 0..2 {
            let expected: Vec<Option<f64>> = (1..40).map(|length| Some(f64::from(length))).collect();
            assert_eq!(command.ask(requests(&programs)), expected);
        }
        assert_eq!(counts(&command), (0.0, 0.0));
    }
}

#[test]
fn a_process_that_misbehaves_costs_one_answer() {
    let place = Place::new();
    let command = place.start(&place.config(COMMAND)).unwrap();
    for bad in ["die", "hang", "silent", "rubbish", "nan", "huge", "other", "endless"] {
        let answers = command.ask(requests(&["a", bad, "ccc"]));
        assert_eq!(answers, [Some(1.0), None, Some(3.0)], "{bad}");
        // One process for the second attempt, one for the program after it.
        assert_eq!(counts(&command), (1.0, 2.0), "{bad}");
    }
}

#[test]
fn a_line_too_many_costs_a_process_and_no_answer() {
    let place = Place::new();
    let command = place.start(&place.config(COMMAND)).unwrap();
    assert_eq!(command.ask(requests(&["twice", "bb", "ccc"])), [Some(5.0), Some(2.0), Some(3.0)]);
    assert_eq!(counts(&command), (0.0, 1.0));
}

#[test]
fn a_fault_that_a_fresh_process_does_not_have_costs_no_answer() {
    // Each process dies at its fifth request, the two checks included.
    let place = Place::new();
    let command = place.start(&place.config(
        "import json, os, sys\nfor n, line in enumerate(sys.stdin):\n    if n == 4: os._exit(1)\n    \
         print(json.dumps({'id': json.loads(line)['id'], 'reward': 7}), flush=True)\n",
    ));
    let command = command.unwrap();
    assert_eq!(command.ask(requests(&["a"; 6])), [Some(7.0); 6]);
    assert_eq!(counts(&command), (0.0, 2.0));
}

#[test]
fn a_command_that_always_fails_ends_the_step_soon() {
    let place = Place::new();
    let command = place.start(&place.config(COMMAND)).unwrap();
    assert_eq!(command.ask(requests(&["rubbish"; 100])), [None; 100]);
    // The first process is there already.
    assert_eq!(counts(&command), (100.0, MOST_FAILURES as f64 - 1.0));
    assert_eq!(command.ask(requests(&["a"])), [Some(1.0)], "the next step asks again");
}

#[test]
fn a_command_that_cannot_answer_is_refused_at_the_start() {
    let place = Place::new();
    let refusal = |config: &RewardConfig| format!("{:#}", place.start(config).err().unwrap());
    let of_program = |program: &str| refusal(&place.config(program));
    let missing = RewardConfig { command: "no-such-command --flag".into(), ..RewardConfig::default() };
    let message = refusal(&missing);
    for text in
        ["reward.command = \"no-such-command --flag\"", "it ended with exit status: 127", "stderr-0.log", "not found"]
    {
        assert!(message.contains(text), "{message}");
    }
    let message = of_program("raise RuntimeError('no weights')");
    assert!(message.contains("RuntimeError: no weights"), "{message}");
    let message = of_program("print('ready', flush=True)\nimport time; time.sleep(1000)");
    assert!(message.contains("it answered \"ready\", not {\"id\": 0, \"reward\": NUMBER}"), "{message}");
    // Right, but for a second line that it always writes.
    let message = of_program(
        "import json, sys\nfor line in sys.stdin:\n    print(json.dumps({'id': json.loads(line)['id'], 'reward': 0}))\n    \
         print('done', flush=True)\n",
    );
    assert!(message.contains("it answered \"done\", not {\"id\": 1"), "{message}");
    let message = of_program("import sys\nfor line in sys.stdin:\n    print(line, flush=True)\n");
    assert!(message.contains("not {\"id\": 0, \"reward\": NUMBER}") && message.len() < 1000, "{message}");
}

#[test]
fn what_it_says_goes_to_a_file_and_its_processes_end_with_it() {
    let place = Place::new();
    let script = place.0.path().join("wrapper.sh");
    std::fs::write(&script, "#!/bin/sh\npython3 \"$1\"\nexit 0\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = "import json, os, sys\nprint('pid', os.getpid(), file=sys.stderr, flush=True)\nfor line in sys.stdin:\n    \
                   print(json.dumps({'id': json.loads(line)['id'], 'reward': 0}), flush=True)\n\
                   import time; time.sleep(1000)\n";
    let config = place.config(program);
    let path = config.command.trim_start_matches("python3 ").to_owned();
    let config = RewardConfig { command: format!("{} {path}", script.display()), ..config };
    let command = place.start(&config).unwrap();
    assert_eq!(command.ask(requests(&["a"])), [Some(0.0)]);
    let said = || std::fs::read_to_string(place.0.path().join("reward_command/stderr-0.log")).unwrap();
    let since = Instant::now();
    while !said().ends_with('\n') {
        assert!(since.elapsed() < Duration::from_secs(10), "nothing in the file");
        thread::sleep(Duration::from_millis(5));
    }
    let log = said();
    let process = Path::new("/proc").join(log.trim().trim_start_matches("pid "));
    // The process of Python is a child of the shell's.
    assert!(process.join("cmdline").exists(), "{log}");
    drop(command);
    let since = Instant::now();
    while std::fs::read(process.join("cmdline")).is_ok_and(|text| !text.is_empty()) {
        assert!(since.elapsed() < Duration::from_secs(10), "{log} still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_request_has_the_documented_fields() {
    let line = requests(&["x = 1"])[0].line();
    assert_eq!(
        line,
        "{\"id\":0,\"part\":\"part\",\"image\":\"picture.png\",\"program\":\"x = 1\",\"outcome\":\"solid\",\
         \"volume\":2.0,\"bounds\":[[0.0,0.0,0.0],[1.0,1.0,2.0]],\"iou\":null}"
    );
}
