
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const form = one("filters");
  const status = one("status");
  const lower = (element) => element.textContent.toLowerCase();
  const severities = all("[data-tally]").map((element) => element.dataset.tally);
  const unfold = (inner, outer = null) => {
    for (let element = inner; element && element !== outer; element = element.parentElement) {
      if (element.localName === "details") element.open = true;
    }
  };
  const many = (number, noun) => `${number || "no"} ${noun}${number === 1 ? "" : "s"}`;

  // What can be filtered: an entry knows its words once, so that typing needn't read the document again.
  const cards = all("[data-card]").map((element) => ({ element, entries: [], of: element.querySelector("[data-of]") }));
  const entries = [];
  const add = (kind, element, holder, targets, words) => {
    const entry = {
      kind, element, targets, words,
      severity: holder.dataset.severity,
      rules: (holder.dataset.rule || "").split(" "),
      category: holder.dataset.category,
    };
    entries.push(entry);
    return entry;
  };
  for (const card of cards) {
    const shared = [card.element.querySelector("summary"), ...all(".texts, .refs, .aside", card.element)].map(lower).join(" ");
    for (const item of all("[data-item]", card.element)) {
      const words = `${shared} ${item.dataset.target.toLowerCase()} ${lower(item)}`;
      card.entries.push(add(card.element.dataset.card, item, card.element, [item.dataset.target], words));
    }
  }
  for (const item of all('[data-item]:not([data-item=""])')) {
    const names = "target" in item.dataset ? [item.dataset.target] : all(".names bdi", item).map((name) => name.textContent);
    add(item.dataset.item, item, item, names, lower(item));
  }

  const asked = () => {
    const data = new FormData(form);
    return {
      severities: new Set(data.getAll("severity")),
      target: data.get("target"),
      rule: data.get("rule"),
      terms: data.get("text").toLowerCase().split(/\s+/).filter(Boolean),
    };
  };
  const matches = (entry, filter) => {
    if (filter.target && !entry.targets.includes(filter.target)) return false;
    if (entry.kind === "target") return true;
    if (filter.rule && !entry.rules.includes(filter.rule) && `category:${entry.category}` !== filter.rule) return false;
    return filter.terms.every((term) => entry.words.includes(term));
  };

  const apply = () => {
    const filter = asked();
    const shown = { path: 0, finding: 0 };
    const total = { path: 0, finding: 0 };
    const tally = Object.fromEntries(severities.map((name) => [name, 0]));
    const grouped = Object.fromEntries(severities.map((name) => [name, 0]));
    for (const entry of entries) {
      let visible = matches(entry, filter);
      if (entry.kind === "finding" && visible) tally[entry.severity] += 1;
      if (entry.severity) visible = visible && filter.severities.has(entry.severity);
      entry.visible = visible;
      if (entry.element.hidden === visible) entry.element.hidden = !visible;
      if (entry.kind in shown) {
        total[entry.kind] += 1;
        shown[entry.kind] += visible;
        if (entry.kind === "finding") grouped[entry.severity] += visible;
      }
    }
    for (const card of cards) {
      const left = card.entries.filter((entry) => entry.visible);
      card.element.hidden = !left.length;
      if (card.of) card.of.textContent = `${left.length === card.entries.length ? "" : `${left.length} of `}${card.entries.length} targets`;
      for (const rest of all(".rest", card.element)) rest.hidden = !left.some((entry) => rest.contains(entry.element));
      if (left.length === 1 && card.of) unfold(left[0].element, card.element);
    }
    for (const group of all("[data-group]")) {
      const number = grouped[group.dataset.group];
      group.hidden = !number;
      group.querySelector("[data-count]").textContent = many(number, "finding");
    }
    for (const element of all("[data-tally]")) element.textContent = tally[element.dataset.tally];
    for (const note of all("[data-nothing]")) note.hidden = Boolean(shown[note.dataset.nothing] || !total[note.dataset.nothing]);
    const filtered = Boolean(filter.target || filter.rule || filter.terms.length || filter.severities.size < severities.length);
    form.classList.toggle("filtered", filtered);
    const text = `${shown.finding} of ${many(total.finding, "finding")} and ${shown.path} of ${many(total.path, "attack path")} shown`;
    if (filtered || status.textContent) status.textContent = text;
  };

  let waiting = 0;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(apply);
  };
  form.addEventListener("input", soon);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());

  // A link may point at what is folded or filtered out.
  const reveal = () => {
    const goal = location.hash && one(decodeURIComponent(location.hash.slice(1)));
    if (!goal) return;
    if (goal.closest("[hidden]")) {
      form.reset();
      apply();
    }
    unfold(goal);
    goal.scrollIntoView();
  };
  addEventListener("hashchange", reveal);

  const findings = one("findings");
  one("open-all").addEventListener("click", () => all("details", findings).forEach((element) => { element.open = true; }));
  one("close-all").addEventListener("click", () => all("details", findings).forEach((element) => { element.open = false; }));

  // Browsers that can't show closed details on paper by style alone print what is open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((element) => { element.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((element) => { element.open = false; }));

  form.hidden = false;
  // What sticks below the filters, and where a link scrolls to, depends on how high they are.
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${form.offsetHeight}px`)).observe(form);
  for (const element of all(".tools, .only-differing")) element.hidden = false;
  apply();
  reveal();
})();
