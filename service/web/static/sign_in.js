// A link on another site brings no session along: if this browser has one after all, go on to the page.
const answer = await fetch("/dashboard/session");
const { signed_in: signedIn } = await answer.json();
if (signedIn) location.replace(document.querySelector("[name=next]").value);
