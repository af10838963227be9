//! The recipes for other systems, whatever their steps do: people are asked only after all of them have succeeded.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes the programs of a recipe in a folder of its own, and runs it as a shell does without any options. The folder has a
/// plan of an earlier run.
const JOB: &str = r#"
mkdir bin && echo old > plan.tfplan
printf '#!/bin/sh\n%s\n' "$TERRAFORM" > bin/terraform
printf '#!/bin/sh\n%s\n' "$GIT" > bin/git
printf '#!/bin/sh\nprintf "%%s\\n" "$@" > asked\n' > bin/countersign
chmod +x bin/*
PATH=$PWD/bin:$PATH exec sh -c "$RECIPE"
"#;

/// The words with which the recipe for Terraform asks; `None` if it does not.
fn asked(terraform: &str, git: &str) -> Option<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/RECIPES.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, block) = document.split_once("```sh terraform\n").unwrap();
    let (recipe, _) = block.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut job = Command::new("sh");
    job.args(["-c", JOB]).current_dir(&folder);
    let ended = job.envs([("RECIPE", recipe), ("TERRAFORM", terraform), ("GIT", git)]).output().unwrap();
    let asked = fs::read_to_string(folder.path().join("asked")).ok();
    assert_eq!(ended.status.success(), asked.is_some(), "{terraform}: {ended:?}");
    asked
}

#[test]
fn a_plan_is_asked_about_only_if_every_step_before_has_succeeded() {
    let of = |plan: &str, show: &str| format!("case $1 in plan) {plan} ;; show) {show} ;; esac");
    let (plan, git) = ("echo new > \"$3\"", "echo 0f1e2d3");
    // `echo new | sha256sum`
    let digest = "plan=sha256:7aa7a5359173d05b63cfd682e3c38487f3cb4f7f1d60659fe59fab1505977d4c";
    for said in
        ["Plan: 1 to add, 0 to change, 0 to destroy.", "No changes. It matches.", "Changes to Outputs:"]
    {
        let words = asked(&of(plan, &format!("echo; echo '{said}'; echo 'Plan: of somebody else'")), git);
        let words = words.unwrap_or_else(|| panic!("{said}"));
        let has = |word: &str| words.lines().any(|line| line == word);
        assert!(has(digest) && has(&format!("changes={said}")), "{words}");
        assert!(has("Apply the plan of 0f1e2d3"), "{words}");
    }
    let show = "echo 'Plan: 1 to add.'";
    for (what, terraform, git) in [
        ("the plan fails", of("exit 1", show), git),
        ("the plan is not written", of("true", show), git),
        ("it cannot be shown", of(plan, "exit 1"), git),
        ("it cannot be shown to the end", of(plan, "echo 'Plan: 1 to add.'; exit 1"), git),
        ("it does not say what it changes", of(plan, "true"), git),
        ("its commit is not known", of(plan, show), "exit 1"),
    ] {
        assert_eq!(asked(&terraform, git), None, "{what}");
    }
}
