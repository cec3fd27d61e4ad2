// Back to an older version: the command to type, and with BOARD_ACTIONS=on a button, which asks first.

import { number, t } from "./page.js";

const $ = (id) => document.getElementById(id);
const { token, runner } = document.body.dataset;
const form = $("rollback-form"), dialog = $("rollback-dialog");
const COMMANDS = {
  docker: (version, run) => `docker exec spark-master fedstream models rollback ${version} --run ${run}`,
  local: (version, run) => `source deploy/local/env.sh; fedstream models rollback ${version} --run ${run}`,
};
let run = null; // of the newest snapshot

/** Take the run that is shown. */
export function showRollback(newest) {
  run = newest;
  form.querySelector("button").hidden = !token || !run;
  const command = COMMANDS[runner](form.version.value || (run?.best?.version ?? "N"), run?.run_id ?? "RUN");
  if ($("rollback-command").textContent !== command) $("rollback-command").textContent = command;
  $("rollback-copy").dataset.copy = command;
}

form.addEventListener("input", () => showRollback(run));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!token || !run) return;
  $("rollback-question").textContent = t("rollback-question", { v: form.version.value, run: run.run_id });
  dialog.showModal();
});
dialog.addEventListener("click", async (event) => {
  const chosen = event.target.value;
  if (!chosen) return;
  dialog.close();
  if (chosen !== "yes") return;
  const [said, wish] = [$("rollback-said"), { run_id: run.run_id, version: Number(form.version.value) }];
  said.textContent = t("rollback-asked");
  const headers = { "Content-Type": "application/json", "X-Board-Token": token };
  try {
    const answer = await fetch("/api/rollback", { method: "POST", headers, body: JSON.stringify(wish) });
    said.textContent = answer.ok
      ? t("rollback-done", { v: number(wish.version), n: number((await answer.json()).version) })
      : t("rollback-failed", { why: await answer.text() });
  } catch {
    said.textContent = t("lost");
  }
});
