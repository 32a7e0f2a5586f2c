//! Programs of others stay secret: those that ran before, those that run beside, and the ground
//! truths.

use std::thread;
use std::time::Duration;

use cadwright_rollout::Scorer;

use crate::common::config;

/// A secret that no other program can contain: its number is not known beforehand.
fn secret() -> String {
    let mut bytes = [0_u8; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let number: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("classified-{number}")
}

/// Ways to get at bytes, each a generator `parts()`.
const SEARCHES: [(&str, &str); 5] = [
    (
        "objects of the collector",
        "import gc\n\
         def parts():\n    for o in gc.get_objects():\n        for item in [o, *gc.get_referents(o)]:\n            \
         if isinstance(item, (bytes, bytearray)): yield bytes(item)\n            \
         elif isinstance(item, str): yield item.encode('utf-8', 'replace')\n",
    ),
    (
        "frames and modules",
        "import sys\n\
         def parts():\n    frame = sys._getframe()\n    while frame:\n        \
         for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n            \
         yield repr(value)[:10**6].encode('utf-8', 'replace')\n            \
         yield repr(getattr(value, '__dict__', ''))[:10**6].encode('utf-8', 'replace')\n        frame = frame.f_back\n",
    ),
    (
        "memory by /proc/self/mem",
        "def parts():\n    try:\n        maps, mem = open('/proc/self/maps'), open('/proc/self/mem', 'rb', 0)\n    \
         except OSError:\n        return\n    \
         for line in maps:\n        span, access, *rest = line.split()\n        \
         if access[:2] != 'rw' or rest[-1] == '[vvar]': continue\n        \
         low, high = (int(a, 16) for a in span.split('-'))\n        \
         for at in range(low, high, 1 << 20):\n            try:\n                mem.seek(at)\n                \
         yield mem.read((1 << 20) + 100)\n            except (OSError, OverflowError, ValueError): pass\n",
    ),
    (
        "memory around an object, page by page through a pipe",
        "import ctypes, os\n\
         def parts():\n    a, b = os.pipe()\n    write = ctypes.CDLL(None).write\n    \
         for start in {id(o) >> 24 << 24 for o in (object(), bytearray(10), [1], 'x' * 5000, bytearray(1 << 20))}:\n        \
         kept = b''\n        for page in range(start - (16 << 20), start + (32 << 20), 4096):\n            \
         n = write(b, ctypes.c_void_p(page), 4096)\n            \
         kept = kept[-100:] + (os.read(a, 4096) if n > 0 else b'')\n            yield kept\n",
    ),
    (
        "files",
        "import glob, os\n\
         def parts():\n    paths = glob.glob('/tmp/cadwright-*/**', recursive=True) + glob.glob('../**', recursive=True)\n    \
         for path in paths + glob.glob('/proc/*/cwd/*') + glob.glob('/proc/*/fd/*'):\n        \
         try:\n            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)\n            yield os.read(fd, 10**6)\n            os.close(fd)\n        except OSError: pass\n",
    ),
];

/// Looks for a whole secret, of which the program itself has only the first word.
fn search(parts: &str) -> String {
    format!(
        "import re\n{parts}\nfound = set()\nfor part in parts():\n    \
         found |= set(re.findall(rb'classified-[0-9a-f]{{32}}', part))\n\
         assert not found, f'got through: {{found}}'\nsolid = cq.Workplane().box(1, 1, 1)\n"
    )
}

/// A program with a secret, which also lies in a file of its directory.
fn keeper(secret: &str, seconds: f64) -> String {
    format!(
        "import time\nopen('mine', 'w').write('{secret}')\ntime.sleep({seconds})\nsolid = cq.Workplane().box(1, 1, 1)\n"
    )
}

/// Executes each search; returns the names of those that found something and what they say.
fn findings(scorer: &Scorer) -> Vec<String> {
    let searches = SEARCHES.iter().map(|(name, parts)| (name, search(parts)));
    let told = searches.filter_map(|(name, program)| {
        let answer = scorer.execute(&program).unwrap().answer;
        answer.error().map(|error| format!("{name}: {error}"))
    });
    told.collect()
}

#[test]
fn a_program_does_not_find_those_that_ran_before() {
    let scorer = Scorer::new(config(1)).unwrap();
    for _ in 0..3 {
        let secret = secret();
        scorer.execute(&keeper(&secret, 0.0)).unwrap();
        scorer.execute(&format!("# {secret}\nsolid = cq.Workplane().box(1, 1, 1)\n")).unwrap();
        // A text that does not compile is kept nowhere either.
        scorer.execute(&format!("# {secret}\nsolid = = 1\n")).unwrap();
    }
    assert_eq!(findings(&scorer), Vec::<String>::new());
}

#[test]
fn a_program_does_not_find_those_that_run_beside() {
    let scorer = Scorer::new(config(3)).unwrap();
    scorer.ready().unwrap();
    let told = thread::scope(|scope| {
        for _ in 0..2 {
            let scorer = &scorer;
            scope.spawn(move || {
                for _ in 0..3 {
                    scorer.execute(&keeper(&secret(), 2.0)).unwrap();
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        findings(&scorer)
    });
    assert_eq!(told, Vec::<String>::new());
}

/// The outcomes of ground truths on disk are neither read nor changed by programs.
#[test]
fn the_cache_of_ground_truths_is_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let settings = cadwright_rollout::ScorerConfig { cache_dir: Some(cache.clone()), ..config(1) };
    let scorer = Scorer::new(settings).unwrap();
    let truth = format!("# {}\nsolid = cq.Workplane().box(1, 2, 3)", secret());
    scorer.ground_truth(&truth.as_str().into()).unwrap();
    let files = || {
        let directories = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
        let files = directories.flat_map(|path| std::fs::read_dir(path).unwrap()).map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let before = files();
    assert_eq!(before.len(), 1);
    let program = format!(
        "import glob, os\ngot = []\nfor path in glob.glob({:?} + '/*/*') + [{:?}]:\n    \
         for how in ('rb', 'r+b'):\n        try:\n            file = open(path, how)\n            \
         got.append(how)\n            if how != 'rb': file.write(b'x')\n        except OSError: pass\n\
         assert not got, f'got through: {{got}}'\nsolid = cq.Workplane().box(1, 1, 1)\n",
        cache.to_str().unwrap(),
        before[0].0.to_str().unwrap()
    );
    // Both as a prediction and as a ground truth.
    let executed = scorer.execute(&program).unwrap().answer.error();
    let judged = scorer.ground_truth(&program.as_str().into()).unwrap().error();
    assert_eq!((executed, judged), (None, None));
    assert!(before.iter().all(|file| files().contains(file)), "the cache has changed");
}
