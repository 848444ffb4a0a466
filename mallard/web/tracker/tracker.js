/**
 * Mallard's tracker: tells one server what happens on one page. No cookie, no storage, no id.
 *
 * One source, three builds: build.js sets PAGEVIEWS and EXTENDED and minifies, which removes what
 * a build leaves out. README.md says which build does what and lists the attributes.
 *
 * Size is a promise (under 1,000 bytes gzipped, under 700 for pageviews), and it shapes the code:
 *
 * - The page is sampled twice a second instead of observed. A look at the address replaces wrapped
 *   history methods, `popstate` and `hashchange`, and cannot break a page's router (browsers with
 *   the Navigation API tell at once, so that two quick ones are two); a look at the focus replaces
 *   four listeners and a clock, and does not count the hours a laptop slept.
 * - A page that nobody sees, because it is prerendered or in a tab not opened yet, has no samples,
 *   so nothing is sent for it and the stub keeps the calls until someone looks. (Chromium shows a
 *   prerendered page a moment before it stops calling its requests prerendering, which the server
 *   would drop: so both are asked.)
 * - The body takes the caller's options as they are: the server reads `url`, `props`, `revenue` and
 *   `interactive` beside `u`, `p`, `$` and `i`, and a shorter name wins over a longer one.
 * - `let` throughout: one keyword compresses better than two.
 *
 * The block keeps these names out of the page.
 */
{
  let script = /** @type {HTMLScriptElement} */ (
    EXTENDED && !document.currentScript
      ? // A module or a tag manager leaves no current script.
        document.querySelector("script[data-domain],script#mallard,script#plausible")
      : document.currentScript
  );

  // The attributes of the script tag. Where the file name already chose a feature, the server
  // serves `1` in place of `"feature" in settings`, and always its event path in place of %ENDPOINT%.
  let settings = script.dataset;

  let seen; // the address of the last automatic pageview: the same one again is no new view
  let page; // body of the last pageview: what engagement is reported for
  let engaged; // samples with the page in focus, not yet reported
  let deepest; // pixels from the top of the page to the lowest line that was on the screen
  let told; // `deepest` when it was last reported
  let height; // of the page, in pixels, when it was last sampled

  /**
   * What pages call as `mallard(name, options)` and `plausible(name, options)`.
   *
   * callback: is called with the Response, with the Error when nobody answered, or with nothing
   * when the event was not sent because this visitor or this place is not counted.
   * @param {string} name
   * @param {{props?: object, revenue?: {amount: number | string, currency: string}, u?: string,
   *   url?: string, interactive?: boolean, callback?: (result?: Response | Error) => void}} [options]
   */
  let send = (name, options, _, refused) => {
    let body = {
      url: location.href,
      w: screen.width,
      d: settings.domain || location.hostname,
      r: document.referrer,
      h: "hash" in settings,
      ...options,
      n: name,
    };
    if (EXTENDED) {
      let props = {};
      for (let attribute of script.getAttributeNames())
        if (attribute.startsWith("event-"))
          props[attribute.slice(6)] = script.getAttribute(attribute);
      body.props = { ...props, ...body.props };
    }
    if (!PAGEVIEWS && name == "pageview") {
      report();
      page = body;
      engaged = deepest = told = 0;
    }
    try {
      refused =
        (!("local" in settings) &&
          // The empty name is a file's. An address in brackets is no site's name to the server.
          (/^(localhost|127\..+|)$/.test(location.hostname) || navigator.webdriver)) ||
        ("privacy" in settings && (navigator.globalPrivacyControl || navigator.doNotTrack > 0)) ||
        /true/.test(["mallard", "plausible"].map((own) => localStorage[own + "_ignore"]));
    } catch {
      // Storage is closed to the page, so nobody can have left the opt-out flag in it.
    }
    refused
      ? options?.callback?.()
      : // A text body needs no CORS preflight, and keepalive lets it outlive the page.
        fetch(settings.api || new URL("%ENDPOINT%", script.src), {
          method: "POST",
          keepalive: true,
          body: JSON.stringify(body),
        })
          .catch((error) => error)
          .then(options?.callback);
  };

  /** Send what was not told yet of the last pageview: three seconds of attention, or new depth. */
  let report = () => {
    if (deepest > told || engaged > 5) {
      send("engagement", {
        ...page,
        sd: (deepest * 100) / height,
        e: engaged * 500,
        callback: 0,
      });
      told = deepest;
      engaged = 0;
    }
  };

  /** A click, with any button, or a submitted form. */
  let act = ({ target, button }) => {
    let link = target.closest("a");
    let tagged = target.closest(
      EXTENDED ? "[class*=event-name],[data-event-name]" : "[class*=event-name]",
    );
    let props = { url: link?.href };
    let submitted = button == null;
    if (button > 1) return; // the right button only opens a menu

    if (submitted && "forms" in settings) send("Form: Submission");
    // Other than http links have no host.
    if ("outbound" in settings && link?.host && link.host != location.host)
      send("Outbound Link: Click", { props });
    if (
      "files" in settings &&
      /\.(xlsx?|wav|pp..?|avi|csv|pkg|rtf|docx?|gz|mov|pdf|dmg|rar|7z|mp.g?|wm.|txt|exe|zip)$/i.test(
        link?.pathname,
      )
    )
      send("File Download", { props });

    // A tagged form counts when it is submitted, anything else when it is clicked.
    let collect = (_, key, __, value) => (props[key] = value.replace(/\+/g, " "));
    if (!tagged?.action != submitted)
      if (EXTENDED)
        for (let { name, value } of tagged?.attributes || [])
          (name + "=" + value).replace(/event-(\S+?)(=|--)(\S+)/g, collect);
      // An SVG element's className is no text and has no replace.
      else tagged?.className.replace?.(/event-(\S+?)(=|--)(\S+)/g, collect);
    // The arguments are evaluated in order: the name is read before it leaves the props.
    if (props.name) send(props.name, { props }, delete props.name);
  };

  /** Look at the page; `moved`, an event, where the address changed between two samples. */
  let sample = (moved) => {
    if (document.hidden || document.prerendering) return;
    if (!PAGEVIEWS) engaged += !moved && document.hasFocus();
    if (
      !("manual" in settings) &&
      seen != (seen = "hash" in settings ? location.href : location.pathname)
    ) {
      if (!EXTENDED || included()) send("pageview");
      else {
        report();
        page = engaged = deepest = told = undefined;
      }
    } else if (!PAGEVIEWS) {
      // Not at once after a navigation, when the old page may still be on the screen.
      if (scrollY + innerHeight > deepest) deepest = scrollY + innerHeight;
      height = document.documentElement.scrollHeight;
    }
    // The first time these are the page's stubs, which have queued calls; afterwards they are ours.
    ["mallard", "plausible"].map((own) => {
      self[own]?.q?.map((call) => send(...call));
      self[own] = send;
    });
  };

  /**
   * Whether `data-include` and `data-exclude` let this page be counted: lists of paths parted by
   * commas, in which * stands for anything but a slash and ** for anything.
   */
  let included = () => {
    let path = location.pathname + ("hash" in settings ? location.hash : "");
    let matches = (list) =>
      list.split(",").some((glob) => {
        let pattern = glob
          .trim()
          .replace(/[.+?^${}()|[\]\\]/g, "\\$&")
          .replace(/\*+/g, (stars) => (stars == "*" ? "[^/]*" : ".*"));
        return RegExp("^" + pattern + "/?$").test(path);
      });
    let { include, exclude } = settings;
    return !(include && !matches(include)) && !(exclude && matches(exclude));
  };

  setInterval(sample, 500, sample());
  // Where the browser tells of navigations, none is too short to be seen.
  self.navigation?.addEventListener("currententrychange", sample);
  // A page that comes back from the browser's back-forward cache was seen again.
  addEventListener("pagehide", () => (seen = 0));
  if (!PAGEVIEWS) {
    addEventListener("visibilitychange", report);
    addEventListener("auxclick", act);
    addEventListener("submit", act);
    addEventListener("click", act);
  }
}
