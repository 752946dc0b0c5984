// Loaded before a node that the quickstart starts. The channel to the parent closes when the parent is gone, however it
// went; then the node ends as if it had been asked to.
process.on('disconnect', () => { process.kill(process.pid, 'SIGTERM') })
// Watching must not keep alive a node that wants to end.
process.channel?.unref()
