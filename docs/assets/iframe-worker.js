// The search of pages that were opened from a folder. Browsers allow no workers there, so the worker's script runs
// in a hidden frame of the page, and messages between the two are handed over here.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      this.inner = frame.contentWindow
      this.inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded = new Promise(done => {
        const script = frame.contentDocument.createElement("script")
        script.src = address
        script.onload = done
        frame.contentDocument.documentElement.append(script)
      })
    }
    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
    set onmessage(listener) { this.addEventListener("message", listener) }
    terminate() {}
  }
}
