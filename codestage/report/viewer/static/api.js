// Asking the server: JSON objects, or an error with a sentence for people.

export async function ask(path, query = {}) {
  const known = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const address = `/api/${path}?${new URLSearchParams(known)}`;
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("No answer: codestage view has ended. Start it again and open its new link.");
  }
  const body = await response
    .json()
    .catch(() => ({ error: `the answer cannot be read (${response.status})` }));
  if (!response.ok) throw new Error(body.error ?? `status ${response.status}`);
  return body;
}
