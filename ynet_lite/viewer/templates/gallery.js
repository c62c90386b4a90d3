"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cases = [...document.querySelectorAll("section.case")];
  const [pick, only, k, shownK, where] = ["pick", "only", "k", "shown-k", "where"].map(byId);
  const classes = [...only.options].slice(1).map((option) => option.textContent);
  const ALL = cases.length;
  cases.forEach((section, i) => pick.add(new Option(section.querySelector("h2").textContent, i)));
  pick.add(new Option("all query cases, as a list", ALL));

  const isolated = (text) => Object.assign(document.createElement("bdi"), { textContent: text });
  const joined = (names, between) => names.flatMap((text, i) => (i ? [between, isolated(text)] : [isolated(text)]));

  function vote(section, items) {
    const counts = new Map();
    for (const item of items) counts.set(+item.dataset.label, (counts.get(+item.dataset.label) || 0) + 1);
    const ordered = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const leaders = ordered.filter((entry) => entry[1] === ordered[0][1]).map((entry) => entry[0]);
    const own = +section.dataset.label;
    const listed = ordered.flatMap(([label, n], i) => [i ? ", " : "", isolated(classes[label]), ` ${n}`]);
    const verdict = document.createElement("strong");
    verdict.className = "verdict";
    verdict.append(leaders.length > 1 ? "Level between " : "Most votes: ", ...joined(leaders.map((i) => classes[i]), " and "));
    if (leaders.length === 1 && leaders[0] === own) verdict.append(", the query's class.");
    else if (own >= 0) verdict.append("; the query is ", isolated(classes[own]), ".");
    else verdict.append(".");
    section.querySelector(".vote").replaceChildren(`Vote of the ${items.length} nearest: `, ...listed, ". ", verdict);
  }

  function show() {
    const chosen = +pick.value;
    cases.forEach((section, i) => {
      section.hidden = chosen !== ALL && chosen !== i;
      if (section.hidden) return;
      const items = [...section.querySelectorAll("ol > li")];
      items.forEach((item, rank) => {
        item.hidden = rank >= +k.value || (only.value !== "" && item.dataset.label !== only.value);
      });
      section.querySelector(".none").hidden = items.some((item) => !item.hidden);
      vote(section, items.slice(0, +k.value));
    });
    shownK.textContent = k.value;
    byId("previous").disabled = chosen === 0;
    byId("next").disabled = chosen >= ALL - 1;
    where.textContent = chosen === ALL ? `all ${ALL} query cases` : `query case ${chosen + 1} of ${ALL}`;
  }

  function go(i) {
    if (i < 0 || i >= ALL) return;
    pick.value = i;
    show();
  }

  const fromAddress = () => cases.findIndex((section) => `#${section.id}` === location.hash);
  for (const control of [pick, only, k]) control.addEventListener("input", show);
  byId("previous").addEventListener("click", () => go((+pick.value === ALL ? 1 : +pick.value) - 1));
  byId("next").addEventListener("click", () => go(+pick.value + 1));
  addEventListener("hashchange", () => go(fromAddress()));
  addEventListener("keydown", (event) => {
    if (event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey || +pick.value === ALL) return;
    if (event.key === "ArrowLeft") go(+pick.value - 1);
    if (event.key === "ArrowRight") go(+pick.value + 1);
  });
  byId("choose").hidden = false;
  k.value = k.max;
  pick.value = Math.max(0, fromAddress());
  show();
})();
