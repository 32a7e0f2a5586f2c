use cadwright::data::design::{design, with_design};
use cadwright::data::{DataSource, Dataset, Split};
use cadwright::model::Tokenizer;

#[test]
fn zz_measure() {
    let data = DataSource::Path("/work/q/quickstart/data".into());
    let rows = Dataset::open(&data, Split::Train, Some(3000)).unwrap();
    let programs: Vec<&str> = rows.examples().iter().filter_map(|e| e.program.as_deref()).collect();
    let none = programs.iter().filter(|p| design(p).is_none()).count();
    println!("programs {} without {none}", programs.len());
    let prompt = "<|im_start|>user\n<img></img><|im_end|>\n<|im_start|>assistant\n";
    let plain = Tokenizer::train(programs[..400].iter().flat_map(|p| [prompt, *p]), 512).unwrap();
    let labels: Vec<String> = programs[..400].iter().filter_map(|p| with_design(p)).collect();
    let planned = Tokenizer::train(labels.iter().flat_map(|p| [prompt, p.as_str()]), 512).unwrap();
    let stats = |mut v: Vec<usize>| {
        v.sort();
        format!("mean {:.1} median {} max {}", v.iter().sum::<usize>() as f64 / v.len() as f64, v[v.len() / 2], v[v.len() - 1])
    };
    println!("plain tokenizer: programs {}", stats(programs.iter().map(|p| plain.encode(p).len()).collect()));
    println!("planned tokenizer: programs {}", stats(programs.iter().map(|p| planned.encode(p).len()).collect()));
    println!("planned tokenizer: labels {}", stats(programs.iter().filter_map(|p| with_design(p)).map(|p| planned.encode(&p).len()).collect()));
    println!("planned tokenizer: plans {}", stats(programs.iter().filter_map(|p| design(p)).map(|p| planned.encode(&format!("<think>\n{p}\n</think>\n")).len()).collect()));
    for p in &programs[..6] {
        println!("---\n{}", design(p).unwrap_or_default());
    }
    let text = std::fs::read_to_string("/work/shared/samples/programs.jsonl").unwrap();
    let (mut n, mut without) = (0, 0);
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["kind"] == "ground_truth" {
            n += 1;
            match design(row["code"].as_str().unwrap()) {
                None => {
                    without += 1;
                    println!("NONE {}", row["code"].as_str().unwrap());
                }
                Some(text) => println!("---{}\n{text}", row["id"]),
            }
        }
    }
    println!("ground truths {n} without {without}");
    let mut reference = cadwright_rewards::native::reference();
    reference.truncate(4000);
    std::fs::write("/tmp/prompts_tok/real_ref.txt", reference).unwrap();
}
