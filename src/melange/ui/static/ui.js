// The page of melange ui: reads the form into a query, asks the server, and shows what it answers.
(function () {
  "use strict";
  var CERTIFY_AFTER_MS = 1500, CURVES_AFTER_MS = 400, SEEN_AFTER_MS = 600, MOST_PINS = 4;
  var OF_PAGE = ["service", "pin", "against", "tab", "auto"];
  var service = document.body.dataset.service;
  var form = byId("controls");
  var pins = [], against = 0, tab = "curves";
  var asked = "", isBusy = false, isStale = false, certifyTimer = 0, curvesTimer = 0;
  var running = {};   // AbortControllers of long work, by name
  var last = null;    // the last answer
  var figures = {};   // drawn figures by id, for another color scheme

  function byId(id) { return document.getElementById(id); }
  function all(selector, within) { return Array.prototype.slice.call((within || document).querySelectorAll(selector)); }

  // The state of the form as pairs that differ from the file.
  function choices() {
    var pairs = [];
    all("[data-choice]", form).forEach(function (field) {
      var value = field.value.trim(), own = field.dataset.own || "";
      if (value === own || (value !== "" && own !== "" && Number(value) === Number(own))) return;
      if (value === "") { if (own !== "" && field.dataset.empty) pairs.push([field.dataset.choice, field.dataset.empty]); return; }
      pairs.push([field.dataset.choice, value]);
    });
    if (byId("traffic").value === "mixture") {
      var shares = parts("mix", byId("mixture")).filter(function (pair) { return Number(pair[1]) > 0; });
      pairs.push(["mix", joined(shares)]);
    }
    all("[data-names]", form).forEach(function (list) {
      var boxes = all("input[type=checkbox]", list), chosen = boxes.filter(function (box) { return box.checked; });
      var value = chosen.length === boxes.length ? "all" : chosen.map(function (box) { return box.value; }).join(",") || "none";
      if (value !== list.dataset.own) pairs.push([list.dataset.names, value]);
    });
    var limits = byId("limits"), counts = joined(parts("max", limits));
    if (counts !== limits.dataset.own) pairs.push(["max", counts]);
    return pairs;
  }
  function parts(name, within) {
    return all('[data-part="' + name + '"]', within).filter(function (field) { return field.value.trim() !== ""; })
      .map(function (field) { return [field.dataset.key, field.value.trim()]; });
  }
  function joined(pairs) { return pairs.map(function (pair) { return pair.join(":"); }).join(","); }
  function encoded(pairs) { return new URLSearchParams(pairs).toString(); }
  function withService(pairs) { return service ? [["service", service]].concat(pairs) : pairs; }
  function pinPairs() {
    var pairs = pins.map(function (pin) { return ["pin", pin]; });
    return against ? pairs.concat([["against", String(against)]]) : pairs;
  }
  function state() { return encoded(withService(choices())); }
  function address(chosen) {
    var pairs = withService(chosen).concat(pinPairs());
    if (tab !== "curves") pairs.push(["tab", tab]);
    if (!byId("auto").checked) pairs.push(["auto", "0"]);
    var query = encoded(pairs);
    return query ? "/?" + query : "/";
  }

  function ask(path, options) {
    var given = options || {};
    given.headers = Object.assign({ "X-Melange-Page": "1" }, given.headers || {});
    return fetch(path, given).then(function (response) {
      return response.json().then(function (content) {
        if (response.status === 401) { location.reload(); }
        if (!response.ok) throw new Error(words(content));
        return content;
      });
    });
  }
  function words(content) {
    if (content.error) return content.error.message + (content.error.hint ? " (" + content.error.hint + ")" : "");
    return typeof content.detail === "string" ? content.detail : "the server refused this";
  }

  // Sliders stand beside the numbers that they set.
  function toSlider(slider) {
    var field = byId(slider.dataset.for), low = Number(slider.dataset.low), high = Number(slider.dataset.high);
    var value = Number(field.value === "" ? field.dataset.own || (slider.dataset.log === "1" ? high : low) : field.value);
    var isLog = slider.dataset.log === "1";
    var at = isLog ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
    slider.value = String(Math.round(1000 * Math.min(1, Math.max(0, at))));
    slider.setAttribute("aria-valuetext", field.value === "" ? field.placeholder || "none" : field.value);
  }
  function fromSlider(slider) {
    var low = Number(slider.dataset.low), high = Number(slider.dataset.high), at = Number(slider.value) / 1000;
    var value = slider.dataset.log === "1" ? low * Math.pow(high / low, at) : low + at * (high - low);
    value = slider.dataset.whole === "1" ? Math.round(value) : Number(value.toPrecision(3));
    byId(slider.dataset.for).value = String(value);
    slider.setAttribute("aria-valuetext", String(value));
  }
  function counted(list) {
    var boxes = all("input[type=checkbox]", list);
    var checked = boxes.filter(function (box) { return box.checked; }).length;
    form.querySelector('[data-count="' + list.dataset.names + '"]').textContent = checked + " of " + boxes.length;
  }

  // The answer while people drag: one question is on the way at a time, and then the newest.
  function changed() {
    history.replaceState(null, "", address(choices()));
    exportLinks();
    stop("certify");
    clearTimeout(certifyTimer);
    clearTimeout(curvesTimer);
    if (isBusy) { isStale = true; return; }
    isBusy = true;
    isStale = false;
    asked = state();
    document.body.dataset.ready = "0";
    var began = performance.now();
    var waiting = setTimeout(function () {
      byId("state").textContent = "Answering ...";
      byId("answer").setAttribute("aria-busy", "true");
    }, SEEN_AFTER_MS);
    ask("/api/answer?" + encoded(withService(choices()).concat(pinPairs()))).then(function (found) {
      if (!isStale) { show(found); document.body.dataset.tookMs = String(Math.round(performance.now() - began)); }
    }).catch(function (error) {
      if (!isStale) fail(error);
    }).then(function () {
      isBusy = false;
      clearTimeout(waiting);
      if (isStale) { changed(); return; }
      byId("answer").setAttribute("aria-busy", "false");
      document.body.dataset.ready = "1";
      document.body.dataset.asked = asked;
      if (last && !last.is_certified && last.summary.cost_per_h !== null && byId("auto").checked) {
        certifyTimer = setTimeout(certify, CERTIFY_AFTER_MS);
      }
      curvesTimer = setTimeout(refreshTab, CURVES_AFTER_MS);
    });
  }
  function show(found) {
    last = found;
    byId("answer").innerHTML = found.html;
    byId("answer").dataset.kind = found.summary.kind;
    byId("answer").dataset.cost = found.summary.cost_per_h === null ? "" : String(found.summary.cost_per_h);
    byId("said").textContent = found.summary.sentence;
    byId("brief").textContent = found.summary.cost_per_h === null ? "No plan" : found.summary.cost_per_h.toFixed(2) + " USD/h, " + found.summary.kind;
    byId("command").textContent = found.is_certified ? found.command : found.quick_command;
    byId("state").textContent = found.is_certified ? "Certified" : found.summary.cost_per_h === null ? "No plan" : "Closed form";
    byId("certify").disabled = found.is_certified || found.summary.cost_per_h === null;
    if (found.rate && byId("rate").value === "") byId("rate").placeholder = Number(found.rate.toPrecision(4)) + " as in the file";
  }
  function fail(error) {
    last = null;
    byId("state").textContent = "No answer";
    var line = document.createElement("p");
    line.className = "fault";
    line.textContent = error.message;
    byId("answer").replaceChildren(line);
    byId("answer").dataset.kind = "none";
    byId("answer").dataset.cost = "";
    byId("command").textContent = "";
    byId("said").textContent = error.message;
    byId("brief").textContent = "No answer";
    byId("certify").disabled = true;
  }

  // Long work: lines of JSON until the work is done; leaving it off cancels it.
  function follow(name, path, body, seen) {
    stop(name);
    var stopper = new AbortController();
    running[name] = stopper;
    var options = { method: "POST", signal: stopper.signal, headers: { "X-Melange-Page": "1", "Content-Type": "application/json" }, body: JSON.stringify(body || {}) };
    return fetch(path, options).then(function (response) {
      if (!response.ok) return response.json().then(function (content) { throw new Error(words(content)); });
      var reader = response.body.getReader(), decoder = new TextDecoder(), rest = "", done = null;
      function next() {
        return reader.read().then(function (part) {
          rest += decoder.decode(part.value || new Uint8Array(), { stream: !part.done });
          var lines = rest.split("\n");
          rest = lines.pop();
          lines.filter(Boolean).forEach(function (line) {
            var told = JSON.parse(line);
            if (told.progress) seen(told.progress);
            if (told.done) done = told.done;
            if (told.error) throw new Error(told.error.message + (told.error.hint ? " (" + told.error.hint + ")" : ""));
          });
          if (!part.done) return next();
          if (done) return done;
          throw new Error("the job ended without a result");
        });
      }
      return next();
    }).finally(function () { if (running[name] === stopper) delete running[name]; });
  }
  function stop(name) { if (running[name]) { running[name].abort(); delete running[name]; } }
  function isStopped(error) { return error.name === "AbortError"; }

  function certify() {
    var of = state();
    working(true, "Certifying ...");
    follow("certify", "/api/certify?" + encoded(withService(choices()).concat(pinPairs())), {}, function (news) {
      byId("state").textContent = "Closed form; certifying: " + news;
    }).then(function (found) {
      working(false);
      if (of === state() && !isBusy) { show(found); refreshTab(); }
    }).catch(function (error) {
      if (isStopped(error)) { if (!running.certify) working(false); return; }
      working(false, "Not certified: " + error.message);
    });
  }
  function working(is, said) {
    byId("cancel").hidden = !is;
    byId("certify").hidden = is;
    byId("busy").hidden = !is;
    if (said) byId("state").textContent = said;
  }

  // Pinned plans are states; the address holds them.
  function drawPins() {
    var row = byId("pins");
    row.replaceChildren();
    if (pins.length) row.append("Compared with ");
    pins.forEach(function (pin, place) {
      var chip = document.createElement("span"), name = label(pin);
      chip.className = "pin";
      var use = button(name, "Compare with " + name, function () { against = place; drawPins(); changed(); });
      use.setAttribute("aria-pressed", String(place === against));
      var open = document.createElement("a");
      open.href = "/?" + encoded(Array.from(new URLSearchParams(pin)).concat(pinPairs()));
      open.textContent = "open";
      open.setAttribute("aria-label", "Open " + name);
      var drop = button("\u00d7", "Unpin " + name, function () {
        pins.splice(place, 1);
        against = Math.max(0, Math.min(against, pins.length - 1));
        drawPins();
        changed();
      });
      chip.append(use, open, drop);
      row.append(chip);
    });
    byId("pin").disabled = pins.length >= MOST_PINS;
    byId("pin").title = pins.length >= MOST_PINS ? "Four plans are pinned already" : "";
  }
  function label(pin) {
    var pairs = Array.from(new URLSearchParams(pin)).filter(function (pair) { return pair[0] !== "service"; });
    return pairs.map(function (pair) { return pair[0].replaceAll("_", " ") + " " + pair[1]; }).join(", ") || "as in the file";
  }
  function button(text, about, act) {
    var made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", about);
    made.addEventListener("click", act);
    return made;
  }

  // Tabs: only the one that is open is kept up to date.
  function openTab(name, isFocused) {
    tab = name;
    all("[role=tab]").forEach(function (one) {
      var is = one.id === "tab-" + name;
      one.setAttribute("aria-selected", String(is));
      one.tabIndex = is ? 0 : -1;
      if (is && isFocused) one.focus();
      byId("panel-" + one.id.slice(4)).hidden = !is;
    });
    history.replaceState(null, "", address(choices()));
    refreshTab();
  }
  function refreshTab() {
    var of = state();
    if (!last || last.summary.cost_per_h === null) {
      if (tab === "curves") {
        byId("curves").textContent = last ? "No curves, because there is no plan." : "";
        byId("curves").dataset.key = "";
      }
    }
    else if (tab === "curves") part("curves", "/api/curves?" + of, of + last.is_certified);
    if (tab === "pinned") part("pinned", "/api/pinned?" + encoded(withService(choices()).concat(pinPairs())), of + pins.join() + (last && last.is_certified));
    ["what-if", "week", "pools"].forEach(function (name) {
      var box = byId(name);
      if (box && box.dataset.of && box.dataset.of !== of && name !== "pools") box.classList.add("stale");
    });
  }
  function part(id, path, key) {
    var box = byId(id);
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.setAttribute("aria-busy", "true");
    ask(path).then(function (found) { if (box.dataset.key === key) fill(box, found); }).catch(function (error) {
      if (box.dataset.key === key) { box.textContent = error.message; box.dataset.key = ""; }
    }).then(function () { box.setAttribute("aria-busy", "false"); });
  }
  function fill(box, found) {
    var open = all("details[open]", box).map(function (one) { return one.parentNode.id; });
    var chosen = {};
    all("select[data-picture]", box).forEach(function (one) { chosen[one.dataset.picture] = one.value; });
    box.innerHTML = found.html;
    box.classList.remove("stale");
    open.filter(Boolean).forEach(function (id) {
      var one = byId(id) && byId(id).querySelector("details");
      if (one) one.open = true;
    });
    Object.keys(found.figures || {}).forEach(function (name) {
      figures[name] = found.figures[name];
      var select = box.querySelector('select[data-picture="' + name + '"]'), index = Number(chosen[name] || 0);
      if (index >= figures[name].length) index = 0;
      if (select) {
        select.value = String(index);
        select.addEventListener("change", function () { draw(name, Number(select.value)); });
      }
      draw(name, index);
    });
  }

  // Figures in the colors of the scheme: those of paper, ink and lines are replaced, those of types stay.
  var DARK = { "#ffffff": "#15181c", "#1a1a1a": "#e6e8ea", "#111111": "#f4f5f6", "#e4e4e4": "#30353b", "#dddddd": "#3a4047",
               "#888888": "#8a9199", "#777777": "#9aa1a8", "#555555": "#b4bac0", "#f2f2f2": "#262b31", "#332288": "#9a8cff", "#0072b2": "#4aa8e0" };
  function draw(name, index) {
    var plot = byId(name + "-plot"), view = figures[name] && figures[name][index];
    if (!plot || !view || !window.Plotly) return;
    byId(name + "-finding").textContent = view.finding;
    plot.dataset.view = String(index);
    var text = JSON.stringify(view.figure);
    if (matchMedia("(prefers-color-scheme: dark)").matches) {
      text = text.replace(/#[0-9a-fA-F]{6}\b/g, function (color) { return DARK[color.toLowerCase()] || color; });
    }
    var figure = JSON.parse(text);
    plot.style.height = figure.layout.height + "px";
    Plotly.react(plot, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false });
  }
  function redraw() {
    Object.keys(figures).forEach(function (name) {
      var plot = byId(name + "-plot");
      if (plot) draw(name, Number(plot.dataset.view || 0));
    });
  }

  // Long work of a tab, with progress and cancel.
  function longWork(name, form, body, path) {
    if (!form) return;
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      var given = body(), box = byId(name), of = state(), said = byId(name + "-state"), cancel = byId(name + "-cancel");
      if (typeof given === "string") { said.textContent = given; return; }
      given.is_simulated = byId(name + "-simulated").checked;
      cancel.hidden = false;
      said.textContent = "working";
      box.setAttribute("aria-busy", "true");
      follow(name, path + "?" + of, given, function (news) { said.textContent = news; }).then(function (found) {
        said.textContent = "";
        fill(box, found);
        box.dataset.of = of;
        if (found.command) box.append(commandLine(found.command));
      }).catch(function (error) {
        said.textContent = isStopped(error) ? "canceled" : error.message;
      }).then(function () {
        if (running[name]) return;
        cancel.hidden = true;
        box.setAttribute("aria-busy", "false");
      });
    });
    byId(name + "-cancel").addEventListener("click", function () { stop(name); });
  }
  function commandLine(text) {
    var line = document.createElement("pre");
    line.textContent = text;
    line.tabIndex = 0;
    return line;
  }
  function questions() {
    var given = {};
    all("[data-flag]").forEach(function (field) {
      given[field.dataset.flag] = field.value.split(";").map(function (one) { return one.trim(); }).filter(Boolean);
    });
    if (given.save.length > 1) return "Only one share of the cost can be given at a time.";
    var isAny = Object.keys(given).some(function (flag) { return given[flag].length; });
    return isAny ? given : "No change is given: fill in a field, or choose an example.";
  }
  function poolLimits() {
    var text = byId("pool-limits").value.trim(), limits = {};
    if (!text) return {};
    var isRead = text.split(",").every(function (one) {
      var at = one.lastIndexOf(":"), count = Number(one.slice(at + 1));
      if (at < 1 || !(count >= 0) || count % 1) return false;
      limits[one.slice(0, at).trim()] = count;
      return true;
    });
    return isRead ? { limits: limits } : "Write NAME:COUNT, NAME:COUNT";
  }

  // Exports.
  function exportLinks() {
    byId("get-service").href = "/service.yaml?" + state();
    byId("get-plan").href = "/plan.json?" + state();
  }
  function save(name, text, kind) {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
  }
  function download(name, text) {
    return button("Save " + name, "Save " + name, function () { save(name.replaceAll("/", "-"), text, "text/plain"); });
  }
  byId("report").addEventListener("click", function () {
    var said = byId("report-state");
    said.textContent = "drawing";
    ask("/api/report?" + state(), { method: "POST" }).then(function (found) {
      if (!found.page) throw new Error(found.error);
      save("plan.html", found.page, "text/html");
      said.textContent = "saved as plan.html";
    }).catch(function (error) { said.textContent = error.message; });
  });
  byId("deploy").addEventListener("submit", function (event) {
    event.preventDefault();
    var said = byId("deploy-state"), box = byId("files");
    var options = byId("options").value.split("\n").map(function (one) { return one.trim(); }).filter(Boolean);
    said.textContent = "writing";
    var body = JSON.stringify({ target: byId("target").value, options: options });
    ask("/api/manifests?" + state(), { method: "POST", body: body, headers: { "Content-Type": "application/json" } }).then(function (found) {
      if (found.error) throw new Error(found.error);
      said.textContent = Object.keys(found.files).length + " files, from the plan by " + (found.kind === "closed form" ? "closed form: certify it first" : found.kind);
      box.replaceChildren();
      found.cautions.forEach(function (one) { var line = document.createElement("p"); line.textContent = one; box.append(line); });
      Object.keys(found.files).forEach(function (name) {
        var title = document.createElement("h3");
        title.textContent = name;
        box.append(title, download(name, found.files[name]), commandLine(found.files[name]));
      });
    }).catch(function (error) { said.textContent = error.message; box.replaceChildren(); });
  });
  function showTarget() {
    all("[data-target]").forEach(function (line) { line.hidden = line.dataset.target !== byId("target").value; });
  }

  // What people do.
  form.addEventListener("input", function (event) {
    var field = event.target;
    if (field.type === "range") fromSlider(field);
    else if (field.id) all('[data-for="' + CSS.escape(field.id) + '"]', form).forEach(toSlider);
    if (field.type === "file") return;
    if (field.type === "checkbox") counted(field.closest("[data-names]"));
    byId("mixture").hidden = byId("traffic").value !== "mixture";
    if (field.checkValidity && !field.checkValidity()) { field.setAttribute("aria-invalid", "true"); return; }
    field.removeAttribute("aria-invalid");
    changed();
  });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("click", function (event) {
    var of = event.target.dataset.all || event.target.dataset.none;
    if (!of) return;
    var list = form.querySelector('[data-names="' + of + '"]');
    all("input[type=checkbox]", list).forEach(function (box) { box.checked = Boolean(event.target.dataset.all); });
    counted(list);
    changed();
  });
  byId("upload").addEventListener("change", function () {
    var file = this.files[0], said = byId("upload-state");
    if (!file) return;
    said.textContent = "uploading " + file.name;
    var name = file.name.replace(/[^A-Za-z0-9._-]/g, "_").replace(/^[^A-Za-z0-9]+/, "");
    ask("/api/files?name=" + encodeURIComponent(name), { method: "POST", body: file }).then(function (found) {
      var option = new Option("Upload " + name, found.traffic);
      byId("traffic").add(option);
      byId("traffic").value = found.traffic;
      byId("mixture").hidden = true;
      said.textContent = name + " is uploaded; a downloaded service.yaml expects it as " + name + ", in the same folder";
      changed();
    }).catch(function (error) { said.textContent = error.message; });
  });
  byId("reset").addEventListener("click", function () {
    location.href = address([]);
  });
  byId("certify").addEventListener("click", function () { clearTimeout(certifyTimer); certify(); });
  byId("cancel").addEventListener("click", function () {
    stop("certify");
    working(false, "Closed form; certification canceled");
  });
  byId("auto").addEventListener("change", function () { changed(); });
  byId("pin").addEventListener("click", function () {
    var now = state();
    if (pins.indexOf(now) < 0 && pins.length < MOST_PINS) pins.push(now);
    against = pins.indexOf(now);
    drawPins();
    changed();
  });
  byId("copy").addEventListener("click", function () {
    var copied = navigator.clipboard ? navigator.clipboard.writeText(byId("command").textContent) : Promise.reject();
    copied.then(function () { byId("copy").textContent = "Copied"; }).catch(function () {
      getSelection().selectAllChildren(byId("command"));
    });
    setTimeout(function () { byId("copy").textContent = "Copy"; }, 2000);
  });
  document.querySelector("[role=tablist]").addEventListener("click", function (event) {
    if (event.target.id) openTab(event.target.id.slice(4), false);
  });
  document.querySelector("[role=tablist]").addEventListener("keydown", function (event) {
    var names = all("[role=tab]").map(function (one) { return one.id.slice(4); }), at = names.indexOf(tab);
    var to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    openTab(names[(to + names.length) % names.length], true);
  });
  all("[data-ask]").forEach(function (preset) {
    preset.addEventListener("click", function () {
      all("[data-flag]").forEach(function (field) { field.value = field.dataset.flag === preset.dataset.ask ? preset.dataset.value : ""; });
      byId("ask").requestSubmit();
    });
  });
  byId("target").addEventListener("change", showTarget);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // On a narrow screen the answer comes first, and the controls are folded above it.
  var narrow = matchMedia("(max-width: 860px)");
  function fold() { byId("question").open = !narrow.matches; }
  narrow.addEventListener("change", fold);
  fold();
  longWork("what-if", byId("ask"), questions, "/api/what-if");
  longWork("week", byId("week-form"), function () { return {}; }, "/api/week");
  longWork("pools", byId("pools-form"), poolLimits, "/api/pools");

  var given = new URLSearchParams(location.search);
  pins = given.getAll("pin").slice(0, MOST_PINS);
  against = Math.max(0, Math.min(Number(given.get("against")) || 0, pins.length - 1));
  byId("auto").checked = given.get("auto") !== "0";
  tab = byId("tab-" + (given.get("tab") || "curves")) ? given.get("tab") || "curves" : "curves";
  all("[data-for]", form).forEach(toSlider);
  showTarget();
  drawPins();
  openTab(tab, false);
  changed();
})();
